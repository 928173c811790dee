//! The adapter with servers that send given bytes, close connections and stall.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

/// What a raw server does after its answer.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    Stall,
    ReadOn,
}

/// A server that answers every request with the same bytes and forwards what it read.
async fn raw(answer: impl Into<Vec<u8>>, then: Then) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = unbounded_channel();
    let answer: Arc<Vec<u8>> = Arc::new(answer.into());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (sender, answer) = (sender.clone(), answer.clone());
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    // The test may already be done.
                    sender.send(request).ok();
                    if stream.write_all(&answer).await.is_err() || then == Then::Close {
                        return;
                    }
                    if then == Then::Stall {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    (url, receiver)
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text.into_owned());
            }
        }
        let mut chunk = [0; 16 * 1024];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

fn answer_200(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_request_carries_what_the_contract_says() {
    let (url, mut requests) = raw(answer_200(r#"{"result":"approved"}"#), Then::Close).await;
    let gateway = gateway_with(&format!("{url}/pay/"), Some("s3cret"), true);
    let outcome = attempt(&gateway, Action::Capture, LONG).await;
    assert_eq!(proof(&outcome), ("result", None, None));
    let request = requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /pay/capture HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, body_of(&gateway, Action::Capture));
    let key = format!("idempotency-key: {}", GatewayKey::first(OPERATION).value());
    for line in [
        key.as_str(),
        "paybus-attempt: 3",
        "authorization: Bearer s3cret",
        "content-type: application/json",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: shop=1",
    ] {
        assert!(head.lines().any(|other| other == line), "{line} is missing in {head}");
    }
}

#[tokio::test]
async fn a_question_names_its_target() {
    let (url, mut requests) = raw(answer_200(r#"{"result":"not_found"}"#), Then::Close).await;
    let gateway = gateway(&url);
    for (target, named) in [(Some(Action::Process), json!(OPERATION)), (None, Value::Null)] {
        assert_eq!(look_up(&gateway, target).await, Found::Nothing);
        let request = requests.recv().await.unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /status HTTP/1.1\r\n") && !head.contains("idempotency-key"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["operation"], &body["target_operation_id"]), (&json!("status"), &named));
        assert_eq!(body["payment"]["id"], json!(PAYMENT));
    }
}

#[tokio::test]
async fn what_is_ready_is_confirmed_and_a_confirmation_is_not_ready() {
    let (url, mut requests) = raw(answer_200(r#"{"result":"ready"}"#), Then::Close).await;
    let gateway = gateway(&url);
    let Outcome::Result(result) = attempt(&gateway, Action::Process, LONG).await else { panic!("no result") };
    assert_eq!(result.verdict, Verdict::Ready);
    requests.recv().await.unwrap();
    assert_eq!(proof(&confirm(&gateway, OPERATION).await), ("unknown", Some(Code::InvalidAnswer), None));
    let request = requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /confirm HTTP/1.1\r\n") && head.contains("idempotency-key: "), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["operation"], &body["amount"]), (&json!("confirm"), &json!("120.00")));
    // Only a process can be ready.
    assert_eq!(proof(&attempt(&gateway, Action::Refund, LONG).await).1, Some(Code::InvalidAnswer));
    // A refusal with this result contradicts itself.
    let refusal = "HTTP/1.1 400 No\r\ncontent-length: 18\r\n\r\n{\"result\":\"ready\"}";
    let (url, _requests) = raw(refusal, Then::Close).await;
    let outcome = attempt(&super::gateway(&url), Action::Process, LONG).await;
    assert_eq!(proof(&outcome), ("unknown", Some(Code::InvalidAnswer), None));
}

#[tokio::test]
async fn what_is_undone_is_what_the_gateway_says_of_the_key() {
    let (url, mut requests) = raw(answer_200(r#"{"result":"not_found"}"#), Then::Close).await;
    assert_eq!(undo(&undoing(&url)).await, Found::Nothing);
    let request = requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /undo HTTP/1.1\r\n"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    let key = json!(GatewayKey::first(OPERATION).value());
    assert_eq!((&body["operation"], &body["target_operation_id"]), (&json!("undo"), &json!(OPERATION)));
    assert_eq!((&body["idempotency_key"], &body["payment"]["id"]), (&key, &json!(PAYMENT)));
    for (answer, says) in [
        (r#"{"result":"undone"}"#, "undone"),
        (r#"{"result":"undone","transactions":[]}"#, "undone"),
        (r#"{"result":"approved"}"#, "approved"),
        (r#"{"result":"declined"}"#, "declined"),
    ] {
        let (url, _requests) = raw(answer_200(answer), Then::Close).await;
        assert_eq!(undo(&undoing(&url)).await.as_str(), says, "{answer}");
    }
    let refusal = "HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n".to_owned();
    let too_late = r#"{"message":"too late"}"#;
    let too_late = format!("HTTP/1.1 422 No\r\ncontent-length: {}\r\n\r\n{too_late}", too_late.len());
    for (answer, code) in [
        (answer_200(r#"{"result":"pending"}"#), Code::Conflict),
        (answer_200(r#"{"result":"undone","amount":null}"#), Code::InvalidAnswer),
        (answer_200(r#"{"result":"undone","Amount":"1.00"}"#), Code::InvalidAnswer),
        (answer_200(&format!(r#"{{"result":"undone","operation_id":"{PAYMENT}"}}"#)), Code::InvalidAnswer),
        (refusal, Code::Conflict),
        (too_late, Code::Refused),
    ] {
        let (url, _requests) = raw(answer.clone(), Then::Close).await;
        assert_eq!(code_of(&undo(&undoing(&url)).await), Some(code), "{answer}");
    }
    // Other operations do not accept it as an answer; and a gateway without undo is not asked to undo.
    let (url, mut requests) = raw(answer_200(r#"{"result":"undone"}"#), Then::Close).await;
    assert_eq!(code_of(&look_up(&gateway(&url), None).await), Some(Code::InvalidAnswer));
    assert_eq!(proof(&attempt(&gateway(&url), Action::Process, LONG).await).1, Some(Code::InvalidAnswer));
    requests.recv().await.unwrap();
    requests.recv().await.unwrap();
    assert_eq!(code_of(&undo(&gateway(&url)).await), Some(Code::Unsupported));
    assert!(requests.try_recv().is_err());
    let contradicts = HttpSettings { undo: true, ..settings(&url, None, true) };
    assert!(matches!(HttpGateway::new(contradicts, LONG), Err(BuildError::Setting { key: "undo", .. })));
}

#[tokio::test]
async fn statuses_prove_what_the_table_says() {
    for (status, word, code, wait) in [
        ("201 Created", "unknown", Code::InvalidAnswer, None),
        ("307 Temporary Redirect\r\nlocation: /elsewhere", "not sent", Code::Misconfigured, None),
        ("302 Found\r\nlocation: /elsewhere", "unknown", Code::Misconfigured, None),
        ("400 Bad Request", "refused", Code::Refused, None),
        ("401 Unauthorized", "not sent", Code::Misconfigured, None),
        ("403 Forbidden", "not sent", Code::Misconfigured, None),
        ("404 Not Found", "refused", Code::Refused, None),
        ("409 Conflict\r\nretry-after: 2", "unknown", Code::Conflict, Some(2)),
        ("422 Unprocessable Entity", "refused", Code::Refused, None),
        ("425 Too Early", "not sent", Code::RateLimited, None),
        ("429 Too Many Requests\r\nretry-after: 7", "not sent", Code::RateLimited, Some(7)),
        ("500 Internal Server Error", "unknown", Code::GatewayError, None),
        ("503 Service Unavailable\r\nretry-after: 30", "unknown", Code::GatewayError, Some(30)),
    ] {
        let said = r#"{"message":"no"}"#;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{said}", said.len());
        let (url, mut requests) = raw(answer, Then::ReadOn).await;
        let gateway = gateway(&url);
        let outcome = attempt(&gateway, Action::Process, LONG).await;
        assert_eq!(proof(&outcome), (word, Some(code), wait), "{status}");
        assert_eq!(code_of(&look_up(&gateway, None).await), Some(code), "{status}");
        drop(gateway);
        requests.recv().await.unwrap();
        requests.recv().await.unwrap();
        assert!(requests.try_recv().is_err(), "{status}: something was sent again or followed");
    }
}

#[tokio::test]
async fn a_page_in_the_gateways_place_refuses_nothing() {
    let html = "<html><head><title>404 Not Found</title></head></html>";
    for status in ["400 Bad Request", "404 Not Found", "405 Method Not Allowed", "413 Too Large", "422 Unprocessable"] {
        for (kind, body) in [("text/html", html), ("text/plain", "404 page not found"), ("application/json", "")] {
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}", body.len());
            let (url, _requests) = raw(format!("{head}\r\n\r\n{body}"), Then::ReadOn).await;
            let gateway = gateway(&url);
            let outcome = attempt(&gateway, Action::Process, LONG).await;
            assert_eq!(proof(&outcome), ("unknown", Some(Code::InvalidAnswer), None), "{status} {kind}");
            assert_eq!(code_of(&look_up(&gateway, None).await), Some(Code::InvalidAnswer), "{status} {kind}");
        }
    }
}

#[tokio::test]
async fn an_ornate_answer_is_a_result() {
    let ornate = "\u{feff}{\"result\":\"approved\",\"amount\":\"120.0000\",\"message\":\"\\ud83d\",\"code\":7}";
    let (url, _requests) = raw(answer_200(ornate), Then::Close).await;
    let Outcome::Result(result) = attempt(&gateway(&url), Action::Process, LONG).await else { panic!("no result") };
    assert_eq!((result.amount(), result.code.as_deref()), (Some(usd("120")), Some("7")));
}

#[tokio::test]
async fn answers_that_break_are_unknown() {
    let large = "x".repeat(client::ANSWER_BYTES_MAX + 1);
    let approval = r#"{"result":"approved"}"#;
    for (name, answer) in [
        ("nothing", String::new()),
        ("no HTTP", "hello\r\n\r\n".to_owned()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-le".to_owned()),
        ("half a body", format!("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{approval}")),
        ("half a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{}".to_owned()),
        ("no JSON", answer_200("<html>")),
        ("no body", answer_200("")),
        ("no result", answer_200(r#"{"status":"approved"}"#)),
        ("not_found", answer_200(r#"{"result":"not_found"}"#)),
        ("too large", answer_200(&large)),
        ("too large in chunks", {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len())
        }),
    ] {
        let (url, mut requests) = raw(answer, Then::Close).await;
        let outcome = attempt(&gateway(&url), Action::Process, LONG).await;
        assert_eq!(proof(&outcome), ("unknown", Some(Code::InvalidAnswer), None), "{name}");
        requests.recv().await.unwrap();
        assert!(requests.try_recv().is_err(), "{name}: it was sent again");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_unknown() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
        let (url, _requests) = raw(answer, Then::Stall).await;
        let outcome = attempt(&gateway(&url), Action::Process, SHORT).await;
        assert_eq!(proof(&outcome), ("unknown", Some(Code::Timeout), None), "{answer:?}");
    }
    // The body that would say whether the gateway refused never arrives.
    let (url, _requests) = raw("HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\n{", Then::Stall).await;
    let outcome = attempt(&gateway(&url), Action::Process, Duration::from_secs(2)).await;
    assert_eq!(proof(&outcome), ("unknown", Some(Code::InvalidAnswer), None));
    // If that does not matter, the status is the answer.
    let (url, _requests) = raw("HTTP/1.1 429 Slow Down\r\ncontent-length: 9\r\n\r\n{", Then::Stall).await;
    let outcome = attempt(&gateway(&url), Action::Process, Duration::from_secs(2)).await;
    assert_eq!(proof(&outcome), ("not sent", Some(Code::RateLimited), None));
}

#[tokio::test]
async fn a_connection_that_was_never_made_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    // A server that does not speak TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    // A label this long is invalid: the resolver rejects it without a query.
    let unknown = format!("{}.example", "x".repeat(64));
    for url in [format!("http://{closed}"), format!("https://{plain}"), format!("http://{unknown}")] {
        let outcome = attempt(&gateway(&url), Action::Process, LONG).await;
        assert_eq!(proof(&outcome), ("not sent", Some(Code::Unreachable), None), "{url}");
        assert_eq!(code_of(&look_up(&gateway(&url), None).await), Some(Code::Unreachable), "{url}");
    }
}

#[tokio::test]
async fn a_connection_that_takes_too_long_to_make_sent_nothing() {
    // It accepts but never sends a byte: the timeout hits the TLS handshake.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = HttpSettings {
        url: GatewayUrl::try_from(format!("https://{}", listener.local_addr().unwrap())).unwrap(),
        token: None,
        account: None,
        account_aliases: Vec::new(),
        key_window: Duration::ZERO,
        settle_window: Duration::ZERO,
        key_windows: KeyWindows::default(),
        after_server_error: AfterServerError::default(),
        lookup: false,
        undo: false,
        multicapture: false,
        webhook_secret: WebhookSecrets::default(),
        notifications: WebhookRole::Hint,
        notification_deadline: LONG,
    };
    let gateway = HttpGateway::new(settings, SHORT * 2).unwrap();
    let outcome = attempt(&gateway, Action::Process, SHORT * 2).await;
    assert_eq!(proof(&outcome), ("not sent", Some(Code::Unreachable), None));
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_never_taken_for_unsent() {
    // It answers the first request and keeps the connection; it receives the second, and closes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&format!("http://{}", listener.local_addr().unwrap()));
    let (sender, mut requests) = unbounded_channel();
    tokio::spawn(async move {
        let mut answer = Some(answer_200(r#"{"result":"approved"}"#));
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Some(request) = read_request(&mut stream).await {
                sender.send(request).unwrap();
                match answer.take() {
                    Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => break,
                }
            }
        }
    });
    assert_eq!(proof(&attempt(&gateway, Action::Process, LONG).await), ("result", None, None));
    let outcome = attempt(&gateway, Action::Process, LONG).await;
    assert_eq!(proof(&outcome), ("unknown", Some(Code::InvalidAnswer), None));
    requests.recv().await.unwrap();
    requests.recv().await.unwrap();
    assert!(requests.try_recv().is_err(), "it was sent again");
}

#[tokio::test]
async fn the_contract_follows_the_settings() {
    let (url, mut requests) = raw(answer_200(r#"{"result":"approved"}"#), Then::Close).await;
    let blind = gateway_with(&url, None, false);
    assert_eq!(blind.contract().lookup, Lookup::None);
    assert_eq!(code_of(&look_up(&blind, None).await), Some(Code::Unsupported));
    assert!(requests.try_recv().is_err());
    assert_eq!(gateway(&url).contract().lookup, Lookup::Authoritative);
    assert_eq!(gateway(&format!("{url}/")).account(), url);
}

#[tokio::test]
async fn a_probe_asks_for_nothing_but_an_answer() {
    for (status, reached) in
        [("404 Not Found", true), ("500 Oops", true), ("401 Unauthorized", false), ("308 Moved", false)]
    {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let (url, mut requests) = raw(answer, Then::Close).await;
        let probed = gateway(&url).probe().await;
        assert_eq!(probed.is_ok(), reached, "{probed:?}");
        assert!(requests.recv().await.unwrap().starts_with("GET / "));
    }
}
