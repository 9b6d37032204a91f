//! Messages over real sockets: what a server hears, and what never leaves the machine.

use super::*;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A web server on loopback that answers each request with the next of `answers`, the last one
/// for ever, and an empty one never.
struct Server {
    port: u16,
    requests: mpsc::UnboundedReceiver<(Instant, String)>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answers: &[&str], tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, requests) = mpsc::unbounded_channel();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let task = tokio::spawn(async move {
            let mut kept = Vec::new();
            let mut at = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answers[at.min(answers.len() - 1)].clone();
                at += 1;
                let request = match &tls {
                    None => {
                        let mut stream = stream;
                        let request = serve(&mut stream, &answer).await;
                        kept.push(stream);
                        request
                    }
                    Some(tls) => match tls.accept(stream).await {
                        Ok(mut stream) => serve(&mut stream, &answer).await,
                        Err(_) => continue,
                    },
                };
                let _ = tell.send((Instant::now(), request));
            }
        });
        Self {
            port,
            requests,
            task,
        }
    }

    fn target(&self, kind: &str, path: &str) -> Target {
        Target::parse(kind, &format!("http://127.0.0.1:{}{path}", self.port)).unwrap()
    }

    async fn next(&mut self) -> (Instant, String) {
        timeout(DEADLINE, self.requests.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answer: &str) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).await.unwrap_or(0);
        text.extend_from_slice(&piece[..read]);
        let request = String::from_utf8_lossy(&text).into_owned();
        let body = request.split_once("\r\n\r\n").map(|(head, body)| {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            (
                length.map_or(0, |length| length.parse().unwrap()),
                body.len(),
            )
        });
        if read == 0 || body.is_some_and(|(expected, length)| length >= expected) {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.flush().await;
            return request;
        }
    }
}

fn loopback_allowed() -> Notifier {
    Notifier::start(|| vec!["127.0.0.1".to_owned()])
}

fn message(is_failure: bool, reason: Option<&str>) -> Message {
    Message {
        is_failure,
        finished_at: "2026-11-25T07:00:00Z".to_owned(),
        gpu_ms: 61_500,
        waiting: 2,
        reason: reason.map(str::to_owned),
    }
}

fn user() -> UserId {
    UserId::parse("one").unwrap()
}

fn body(request: &str) -> serde_json::Value {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn nothing_goes_to_addresses_that_are_not_public() {
    let mut server = Server::start(&[OK], None).await;
    let port = server.port;
    let nobody = Notifier::start(Vec::new);
    let others = Notifier::start(|| vec!["127.0.0.2".to_owned(), "example.org".to_owned()]);
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "192.168.0.1",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let target = Target::parse("webhook", &format!("{scheme}://{host}:{port}/")).unwrap();
            for notifier in [&nobody, &others] {
                let error = notifier.test(&target).await.unwrap_err();
                // Some systems do not know the spelling at all.
                assert!(
                    matches!(error, NotifyError::NotPublic | NotifyError::Name),
                    "{host}: {error:?}"
                );
            }
        }
    }
    let plain = nobody.test(&server.target("webhook", "/")).await;
    assert!(matches!(plain, Err(NotifyError::NotPublic)), "{plain:?}");
    assert!(server.requests.try_recv().is_err());
    nobody.stop().await;
    others.stop().await;
}

#[tokio::test]
async fn named_hosts_need_not_be_public() {
    let mut server = Server::start(&[OK], None).await;
    let port = server.port;
    let notifier = Notifier::start(|| vec!["LocalHost".to_owned(), "127.0.0.1".to_owned()]);
    for host in ["127.0.0.1", "LOCALHOST"] {
        let target = Target::parse("webhook", &format!("http://{host}:{port}/a?b")).unwrap();
        notifier.test(&target).await.unwrap();
        let (_, request) = server.next().await;
        assert!(request.starts_with("POST /a?b HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains(&format!("host: {host}:{port}\r\n")),
            "{request}"
        );
        assert_eq!(body(&request), json!({ "event": "test" }));
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_webhook_is_told_and_learns_no_words_of_comfyui() {
    let mut server = Server::start(&[OK], None).await;
    let notifier = loopback_allowed();
    notifier.send(user(), server.target("webhook", "/x"), message(false, None));
    let (_, request) = server.next().await;
    let expected = json!({
        "event": "job_finished", "state": "completed", "finished_at": "2026-11-25T07:00:00Z",
        "gpu_seconds": 62, "waiting": 2, "reason": null, "completed": 1, "failed": 0,
    });
    assert_eq!(body(&request), expected);
    let secret = "cannot open '/srv/comfy/input/my face.png'";
    notifier.send(
        user(),
        server.target("webhook", "/x"),
        message(true, Some(secret)),
    );
    let (_, request) = server.next().await;
    assert!(!request.contains("face"), "{request}");
    assert_eq!(body(&request)["state"], "failed");
    assert_eq!(body(&request)["reason"], "ComfyUI could not do it.");
    notifier.stop().await;
}

#[tokio::test]
async fn ntfy_is_told_with_a_title_and_what_waits_together_is_one_message() {
    let mut server = Server::start(&[OK], None).await;
    let notifier = loopback_allowed();
    let target = server.target("ntfy", "/topic");
    notifier.send(
        user(),
        target.clone(),
        message(true, Some("CUDA out of memory at x")),
    );
    let (first_at, request) = server.next().await;
    for part in [
        "title: A picture has failed\r\n",
        "priority: high\r\n",
        "tags: warning\r\n",
    ] {
        assert!(request.contains(part), "{request}");
    }
    let text = "The memory of the GPU was not enough. Time on the GPU: 1 min 02 s. \
        2 more are waiting.";
    assert!(request.ends_with(text), "{request}");
    for _ in 0..5 {
        notifier.send(user(), target.clone(), message(false, None));
    }
    let (second_at, request) = server.next().await;
    assert!(
        request.contains("title: 5 pictures are done\r\n"),
        "{request}"
    );
    assert!(!request.contains("priority"), "{request}");
    assert!(request.contains("5 min 08 s"), "{request}");
    assert!(second_at - first_at >= PAUSE, "{:?}", second_at - first_at);
    notifier.stop().await;
    assert!(server.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut inner = Server::start(&[OK], None).await;
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
        inner.port
    );
    let server = Server::start(&[&answer], None).await;
    let notifier = loopback_allowed();
    let result = notifier.test(&server.target("webhook", "/")).await;
    assert!(
        matches!(result, Err(NotifyError::Refused(307))),
        "{result:?}"
    );
    assert!(inner.requests.try_recv().is_err());
    notifier.stop().await;
}

#[tokio::test]
async fn a_second_try_is_the_last_one() {
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    let gone = "HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n";
    let mut server = Server::start(&[busy, busy, gone, OK], None).await;
    let notifier = loopback_allowed();
    for waiting in [7, 8, 9] {
        let mut message = message(false, None);
        message.waiting = waiting;
        let target = server.target("webhook", &format!("/{waiting}"));
        notifier.send(user(), target, message);
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(body(&server.next().await.1)["waiting"].as_u64().unwrap());
    }
    assert_eq!(seen, [7, 7, 8, 9]);
    notifier.stop().await;
}

#[tokio::test]
async fn a_silent_server_holds_up_nobody_else_and_no_stop() {
    let mut silent = Server::start(&[""], None).await;
    let mut server = Server::start(&[OK], None).await;
    let notifier = loopback_allowed();
    notifier.send(user(), silent.target("webhook", "/"), message(false, None));
    silent.next().await;
    let other = UserId::parse("other").unwrap();
    notifier.send(other, server.target("webhook", "/"), message(false, None));
    server.next().await;
    let begin = Instant::now();
    notifier.stop().await;
    assert!(begin.elapsed() < STOP_TIME_LIMIT);
}

#[tokio::test]
async fn what_does_not_fit_is_dropped() {
    let notifier = loopback_allowed();
    notifier.stop().await;
    for at in 0..MAX_WAITING + 10 {
        let target = Target::parse("webhook", &format!("http://127.0.0.1/{at}")).unwrap();
        notifier.send(user(), target, message(false, None));
    }
    let line = notifier.post.line.lock();
    assert_eq!(line.len(), MAX_WAITING);
    assert_eq!(
        line.back().unwrap().target.path,
        format!("/{}", MAX_WAITING - 1)
    );
}

#[tokio::test]
async fn answers_are_bounded_and_not_shown() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "secret".repeat(10_000));
    let server = Server::start(&["nonsense secret\r\n\r\n", &long], None).await;
    let notifier = loopback_allowed();
    for _ in 0..2 {
        let error = notifier
            .test(&server.target("webhook", "/"))
            .await
            .unwrap_err();
        assert!(matches!(error, NotifyError::Exchange(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
    notifier.stop().await;
}

#[tokio::test]
async fn secure_servers_need_a_certificate_for_their_name() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut server = Server::start(&[OK], Some(acceptor)).await;
    let allowed = || vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = Notifier::with_roots(allowed, roots);
    let target = |host: &str| {
        Target::parse("ntfy", &format!("https://{host}:{}/topic", server.port)).unwrap()
    };
    let (by_name, by_address) = (target("localhost"), target("127.0.0.1"));
    trusting.test(&by_name).await.unwrap();
    let (_, request) = server.next().await;
    assert!(request.starts_with("POST /topic HTTP/1.1\r\n"), "{request}");
    let wrong_name = trusting.test(&by_address).await;
    assert!(
        matches!(wrong_name, Err(NotifyError::Secure(_))),
        "{wrong_name:?}"
    );
    let notifier = Notifier::start(allowed);
    let unknown = notifier.test(&by_name).await;
    assert!(
        matches!(unknown, Err(NotifyError::Secure(_))),
        "{unknown:?}"
    );
    trusting.stop().await;
    notifier.stop().await;
}
