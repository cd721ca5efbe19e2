//! The S3 store against a server that answers as the tests say: what real servers do only on bad days.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{Spool, Store};
use super::read::READ_ATTEMPTS;
use super::*;
use crate::aws::http_client;

/// A request as it came, without its body.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    headers: String,
}

impl Request {
    fn is(&self, method: &str, query: &str) -> bool {
        self.line.starts_with(&format!("{method} ")) && self.line.contains(query)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// A store that answers as a test says: one request a connection, raw bytes back (none: the answer is lost).
struct Scripted {
    store: Store,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    fn lines(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|request| request.line.split(" HTTP").next().unwrap().to_owned())
            .collect()
    }
}

async fn scripted(answer: impl Fn(&Request, usize) -> String + Send + Sync + 'static) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let head = loop {
                    if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                        break end;
                    }
                    if connection.read_buf(&mut bytes).await.unwrap() == 0 {
                        return;
                    }
                };
                let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
                let (line, headers) = text.split_once("\r\n").unwrap();
                let request = Request {
                    line: line.to_owned(),
                    headers: headers.to_owned(),
                };
                let length: usize = request
                    .header("content-length")
                    .map_or(0, |length| length.parse().unwrap());
                while bytes.len() < head + 4 + length {
                    connection.read_buf(&mut bytes).await.unwrap();
                }
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                let reply = answer(&request, number);
                connection.write_all(reply.as_bytes()).await.unwrap();
            });
        }
    });
    let location = format!("s3://bucket?endpoint={endpoint}&path-style=true");
    let keys = Credentials::Keys {
        access_key_id: "id".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
    };
    let store = Store::open(&location.parse().unwrap(), &keys).await;
    Scripted {
        store: store.unwrap(),
        requests,
    }
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

fn refusal(status: &str, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    reply(status, "", &body)
}

/// An answer that promises `length` bytes, whatever it has.
fn object(length: usize, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\nconnection: close\r\ncontent-length: {length}\r\netag: \"e\"\r\n\
         {headers}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn read_that_breaks_off_is_resumed_from_there() {
    let server = scripted(|_, number| match number {
        0 => object(6, "content-range: bytes 2-7/10", "23"),
        1 => refusal("503 Slow Down", "SlowDown"),
        // Honest about being short.
        2 => object(1, "content-range: bytes 4-4/10", "4"),
        _ => object(3, "content-range: bytes 5-7/10", "567"),
    })
    .await;
    assert_eq!(server.store.get_range("key", 2..8).await.unwrap(), "234567");
    let requests = server.requests.lock().unwrap().clone();
    let asked: Vec<_> = requests
        .iter()
        .map(|request| (request.header("range"), request.header("if-match")))
        .collect();
    let same = Some("\"e\"");
    assert_eq!(
        asked,
        [
            (Some("bytes=2-7"), None),
            (Some("bytes=4-7"), same),
            (Some("bytes=4-7"), same),
            (Some("bytes=5-7"), same)
        ]
    );
}

#[tokio::test]
async fn read_without_progress_ends_with_an_error() {
    let server = scripted(|_, _| object(6, "content-range: bytes 0-5/6", "")).await;
    let error = server.store.get("key", 100).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(server.lines().len(), READ_ATTEMPTS as usize);
}

#[tokio::test]
async fn replaced_object_is_not_mixed_with_its_predecessor() {
    let server = scripted(|_, number| match number {
        0 => object(6, "content-range: bytes 0-5/6", "01"),
        _ => refusal("412 Precondition Failed", "PreconditionFailed"),
    })
    .await;
    let error = server.store.get_range("key", 0..6).await.unwrap_err();
    assert_eq!(error.meaning(), Meaning::Precondition);
}

#[tokio::test]
async fn store_without_ranges_is_noticed() {
    let server = scripted(|_, _| reply("200 OK", "etag: \"e\"\r\n", "0123456789")).await;
    let error = server.store.get_range("key", 4..6).await.unwrap_err();
    assert_eq!(error.meaning(), Meaning::Unsupported);
}

#[tokio::test]
async fn lost_answer_of_a_create_may_be_its_own_echo() {
    let server = scripted(|_, number| match number {
        0 => String::new(),
        _ => refusal("412 Precondition Failed", "PreconditionFailed"),
    })
    .await;
    let created = server.store.put_new("key", Bytes::from_static(b"x")).await;
    assert_eq!(created.unwrap(), Created::Exists);
    assert_eq!(server.lines().len(), 2);
    let requests = server.requests.lock().unwrap();
    assert!(
        requests
            .iter()
            .all(|request| request.header("if-none-match") == Some("*"))
    );
}

#[tokio::test]
async fn conflict_of_a_small_create_is_tried_again() {
    let server = scripted(|_, number| match number {
        0 => refusal("409 Conflict", "ConditionalRequestConflict"),
        _ => reply("200 OK", "etag: \"e\"\r\n", ""),
    })
    .await;
    let created = server.store.put_new("key", Bytes::from_static(b"x")).await;
    let etag = "e".to_owned();
    assert_eq!(created.unwrap(), Created::New { etag });
}

#[tokio::test]
async fn listing_that_hides_its_rest_is_an_error() {
    let server = scripted(|_, _| {
        let body = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        reply("200 OK", "", body)
    })
    .await;
    let error = server.store.list("").next_page().await.unwrap_err();
    assert!(matches!(error, StoreError::List { .. }), "{error:?}");
}

/// Uploads an object of two parts to a store that answers the completion, and HEAD, as told.
async fn upload(
    complete: fn(usize) -> String,
    head: &'static str,
) -> (Scripted, Result<Created, StoreError>) {
    let completions = std::sync::atomic::AtomicUsize::new(0);
    let server = scripted(move |request, _| {
        if request.is("POST", "?uploads") {
            let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
            reply("200 OK", "", body)
        } else if request.is("POST", "uploadId=u1") {
            complete(completions.fetch_add(1, Ordering::Relaxed))
        } else if request.is("HEAD", "") {
            let date = "last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n";
            reply(head, date, "")
        } else if request.is("PUT", "") {
            reply("200 OK", "etag: \"p\"\r\n", "")
        } else {
            reply("204 No Content", "", "")
        }
    })
    .await;
    let scratch = tempfile::tempdir().unwrap();
    let content = Bytes::from(vec![7; PART_SIZE as usize + 1]);
    let mut spool = Spool::of(scratch.path(), content).await.unwrap();
    let result = server.store.upload_new("key", &mut spool).await;
    (server, result)
}

fn was_aborted(server: &Scripted) -> bool {
    server
        .lines()
        .iter()
        .any(|line| line.starts_with("DELETE ") && line.contains("uploadId=u1"))
}

const DONE: &str =
    "<CompleteMultipartUploadResult><ETag>\"done\"</ETag></CompleteMultipartUploadResult>";

#[tokio::test]
async fn upload_is_completed_conditionally() {
    let (server, result) = upload(|_| reply("200 OK", "", DONE), "404 Not Found").await;
    let etag = "done".to_owned();
    assert_eq!(result.unwrap(), Created::New { etag });
    assert!(!was_aborted(&server));
    let requests = server.requests.lock().unwrap();
    let last = requests.last().unwrap();
    assert_eq!(last.header("if-none-match"), Some("*"), "{last:?}");
}

#[tokio::test]
async fn error_in_the_body_of_a_good_status_is_retried() {
    let (_, result) = upload(
        |number| match number {
            0 => refusal("200 OK", "InternalError"),
            _ => reply("200 OK", "", DONE),
        },
        "404 Not Found",
    )
    .await;
    let etag = "done".to_owned();
    assert_eq!(result.unwrap(), Created::New { etag });
}

#[tokio::test]
async fn loser_of_an_upload_aborts_it() {
    let refused = |_| refusal("412 Precondition Failed", "PreconditionFailed");
    let (server, result) = upload(refused, "200 OK").await;
    assert_eq!(result.unwrap(), Created::Exists);
    assert!(was_aborted(&server));
}

#[tokio::test]
async fn lost_answer_of_a_completion_may_be_its_own_echo() {
    let (_, result) = upload(
        |number| match number {
            0 => String::new(),
            _ => refusal("404 Not Found", "NoSuchUpload"),
        },
        "200 OK",
    )
    .await;
    assert_eq!(result.unwrap(), Created::Exists);
}

#[tokio::test]
async fn upload_that_was_swept_away_is_an_error() {
    let gone = |_| refusal("404 Not Found", "NoSuchUpload");
    let (_, result) = upload(gone, "404 Not Found").await;
    assert_eq!(result.unwrap_err().meaning(), Meaning::UploadGone);
}

#[tokio::test]
async fn conflict_of_a_completion_has_its_own_meaning() {
    let conflict = |_| refusal("409 Conflict", "ConditionalRequestConflict");
    let (server, result) = upload(conflict, "404 Not Found").await;
    assert!(result.unwrap_err().is_conflict());
    assert!(was_aborted(&server));
}

#[tokio::test]
async fn store_that_ignores_conditions_is_found_out() {
    let server = scripted(|request, _| {
        if request.is("POST", "?uploads") {
            let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
            reply("200 OK", "", body)
        } else if request.is("POST", "") {
            reply("200 OK", "", DONE)
        } else if request.is("HEAD", "") {
            reply("200 OK", "last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n", "")
        } else {
            reply("200 OK", "etag: \"p\"\r\n", "")
        }
    })
    .await;
    let found = server.store.probe("nonce").await.unwrap();
    let none = Conditional {
        put: false,
        complete: false,
    };
    assert_eq!((found, server.store.conditional_writes()), (none, none));
    assert_eq!(
        server.lines().last().unwrap(),
        "DELETE /bucket/metadata/ark-probe-nonce?x-id=DeleteObject"
    );
    // From now on it looks before it writes.
    let created = server.store.put_new("key", Bytes::new()).await.unwrap();
    assert_eq!(created, Created::Exists);
    assert_eq!(server.lines().last().unwrap(), "HEAD /bucket/key");
}

#[tokio::test]
async fn store_that_refuses_conditions_is_found_out() {
    let server = scripted(|request, _| {
        if request.header("if-none-match").is_some() {
            refusal("501 Not Implemented", "NotImplemented")
        } else if request.is("POST", "?uploads") {
            let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
            reply("200 OK", "", body)
        } else if request.is("HEAD", "") {
            reply("404 Not Found", "", "")
        } else {
            reply("200 OK", "etag: \"p\"\r\n", "")
        }
    })
    .await;
    let found = server.store.probe("nonce").await.unwrap();
    let none = Conditional {
        put: false,
        complete: false,
    };
    assert_eq!(found, none);
    let etag = "p".to_owned();
    let created = server.store.put_new("key", Bytes::new()).await.unwrap();
    assert_eq!(created, Created::New { etag });
}

#[test]
fn parts_never_reach_the_limits_of_s3() {
    let total: u64 = (1..=10_000).map(part_size).sum();
    assert!(total >= 5 << 40, "an object may have 5 TiB");
    assert!(part_size(10_000) <= 5 << 30, "a part may have 5 GiB");
    assert_eq!(part_size(1000), PART_SIZE);
    assert_eq!(part_size(1001), 2 * PART_SIZE);
}

#[test]
fn bad_certificates_are_an_error_and_no_panic() {
    for bundle in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(http_client(Some(bundle.as_bytes())).is_err(), "{bundle}");
    }
}
