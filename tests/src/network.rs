//! Reaching into a cluster's network: forwarders between this machine's loopback and a network namespace.
//!
//! A socket belongs to the namespace of the thread that makes it, and can be used from anywhere afterwards. So one
//! thread per cluster enters its namespace and makes sockets on demand; no helper process, route or address is needed
//! on the machine itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// Ports of 127.0.0.1 that nobody listened on a moment ago, all different.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

#[cfg(target_os = "linux")]
pub use namespace::Namespace;

#[cfg(target_os = "linux")]
mod namespace {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::mpsc;

    use anyhow::anyhow;
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use tokio::net::{TcpListener as AsyncListener, TcpStream as AsyncStream};

    use super::*;
    use crate::{background, process};

    /// A network namespace, entered by way of a process that lives in it.
    #[derive(Clone)]
    pub struct Namespace {
        path: PathBuf,
        sockets: mpsc::Sender<Request>,
    }

    enum Request {
        Connect(
            SocketAddr,
            tokio::sync::oneshot::Sender<std::io::Result<TcpStream>>,
        ),
        Listen(SocketAddr, mpsc::Sender<std::io::Result<TcpListener>>),
    }

    impl Namespace {
        /// The network namespace of that process.
        pub fn of_process(process_id: u32) -> Result<Self> {
            let path = PathBuf::from(format!("/proc/{process_id}/ns/net"));
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            let (sockets, requests) = mpsc::channel();
            let (entered, answer) = mpsc::channel();
            std::thread::Builder::new()
                .name("namespace".into())
                .spawn(move || {
                    let result =
                        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
                    let failed = result.is_err();
                    let _ = entered.send(result);
                    if failed {
                        return;
                    }
                    for request in requests {
                        match request {
                            Request::Connect(address, reply) => {
                                drop(reply.send(TcpStream::connect(address)))
                            }
                            Request::Listen(address, reply) => {
                                drop(reply.send(TcpListener::bind(address)))
                            }
                        }
                    }
                })?;
            answer
                .recv()
                .context("the namespace thread is gone")?
                .with_context(|| format!("entering {}", path.display()))?;
            Ok(Namespace { path, sockets })
        }

        /// The namespace's file, for nsenter.
        pub fn path(&self) -> &Path {
            &self.path
        }

        /// A command that runs inside and dies with this process; start it with [`process::spawn`] or a `Run`.
        pub fn bound(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
            let mut command = process::bound("nsenter");
            command
                .arg(format!("--net={}", self.path.display()))
                .arg("--")
                .arg(program);
            command
        }

        /// A command that runs inside.
        pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--net={}", self.path.display()))
                .arg("--")
                .arg(program);
            command
        }

        /// Makes an address inside reachable from the machine: gives the port on 127.0.0.1.
        pub fn forward_in(&self, inside: SocketAddr) -> Result<u16> {
            let listener =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on 127.0.0.1")?;
            let port = listener.local_addr()?.port();
            let namespace = self.clone();
            forward(listener, move || namespace.clone().connect(inside))?;
            Ok(port)
        }

        /// Makes an address inside reachable at another address inside.
        pub fn forward_within(&self, at: SocketAddr, to: SocketAddr) -> Result<()> {
            let namespace = self.clone();
            forward(self.listen(at)?, move || namespace.clone().connect(to))
        }

        /// Makes an address of the machine reachable from inside, at another address there.
        pub fn forward_out(&self, inside: SocketAddr, outside: SocketAddr) -> Result<()> {
            forward(self.listen(inside)?, move || async move {
                Ok(AsyncStream::connect(outside).await?)
            })
        }

        async fn connect(self, address: SocketAddr) -> Result<AsyncStream> {
            let (reply, answer) = tokio::sync::oneshot::channel();
            self.sockets
                .send(Request::Connect(address, reply))
                .map_err(|_| anyhow!("the namespace thread is gone"))?;
            let stream = answer.await.context("the namespace thread is gone")??;
            stream.set_nonblocking(true)?;
            Ok(AsyncStream::from_std(stream)?)
        }

        fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
            let (reply, answer) = mpsc::channel();
            self.sockets
                .send(Request::Listen(address, reply))
                .map_err(|_| anyhow!("the namespace thread is gone"))?;
            let listener = answer.recv().context("the namespace thread is gone")?;
            listener.with_context(|| format!("listening on {address} in the cluster"))
        }
    }

    /// Accepts connections for as long as this process lives and joins each with one that `connect` makes.
    fn forward<F>(listener: TcpListener, connect: impl Fn() -> F + Send + 'static) -> Result<()>
    where
        F: Future<Output = Result<AsyncStream>> + Send + 'static,
    {
        listener.set_nonblocking(true)?;
        let _runtime = background::handle().enter();
        let listener = AsyncListener::from_std(listener)?;
        background::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let far = connect();
                background::spawn(async move {
                    // Refused on the far side is closed on the near side: all that a forwarder can say.
                    if let Ok(mut far) = far.await {
                        let _ = near.set_nodelay(true);
                        let _ = far.set_nodelay(true);
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(())
    }
}
