//! One thread that runs proxies and forwarders.
//!
//! They must outlive the test that started them (a cluster is shared) and go on while a test blocks on a child process;
//! a test's own runtime gives neither.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

/// Runs the future on the background thread.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    handle().spawn(future)
}

/// The background thread's runtime, for turning sockets of the standard library into Tokio's.
pub fn handle() -> &'static Handle {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only file descriptors");
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("background".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .expect("a thread can be started");
        handle
    })
}
