//! The stream as a browser reads it: whole messages, changed or not, and ours between them.

use super::rewrite::{PROGRESS_TEXT, Rewriter};
use super::wire::{BINARY, CLOSE, CONTINUATION, FIN, MASKED, PING, PONG, TEXT, write_text};
use super::*;
use crate::comfyui::event;
use crate::jobs::Verdict;
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use proptest::prelude::*;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_text(payload, &mut bytes);
    bytes[0] = first;
    bytes
}

/// Replaces each `status`.
fn changes_status(text: &[u8], is_whole: bool) -> Passage {
    let is_status = matches!(event::read(text), Some(event::Event::Status));
    Passage::Now(if is_status && is_whole {
        Verdict::Replace(Bytes::from_static(b"{\"changed\":1}"))
    } else {
        Verdict::Pass
    })
}

fn rewriter(hears_text: bool) -> Rewriter {
    Rewriter::new(Box::new(changes_status), Arc::new(move || hears_text))
}

/// Lets all events pass.
fn passes_all(_: &[u8], _: bool) -> Passage {
    Passage::Now(Verdict::Pass)
}

fn run(rewriter: &mut Rewriter, pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let taken = rewriter.take(rest, &mut out);
            rest = &rest[taken..];
        }
    }
    out
}

const STATUS_TEXT: &[u8] =
    b"{\"type\": \"status\", \"data\": {\"status\": {\"exec_info\": {\"queue_remaining\": 1}}}}";

#[test]
fn only_a_status_is_changed() {
    let changed = frame(FIN | TEXT, b"{\"changed\":1}");
    let table: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (frame(FIN | TEXT, STATUS_TEXT), changed.clone()),
        (frame(FIN | TEXT, b"{\"type\":\"status\"}"), changed),
        (
            frame(FIN | TEXT, b"{\"type\": \"executing\"}"),
            frame(FIN | TEXT, b"{\"type\": \"executing\"}"),
        ),
        (
            frame(FIN | BINARY, STATUS_TEXT),
            frame(FIN | BINARY, STATUS_TEXT),
        ),
        (frame(TEXT, STATUS_TEXT), frame(TEXT, STATUS_TEXT)),
        (frame(FIN | 9, STATUS_TEXT), frame(FIN | 9, STATUS_TEXT)),
        (
            frame(FIN | 0x40 | TEXT, STATUS_TEXT),
            frame(FIN | 0x40 | TEXT, STATUS_TEXT),
        ),
        (frame(FIN | TEXT, b""), frame(FIN | TEXT, b"")),
        (
            frame(FIN | BINARY, &vec![7; 70_000]),
            frame(FIN | BINARY, &vec![7; 70_000]),
        ),
    ];
    for (sent, expected) in table {
        assert_eq!(run(&mut rewriter(true), &[&sent]), expected);
    }
}

#[test]
fn r14_progress_texts_of_others_are_left_out() {
    let text = frame(FIN | BINARY, b"\0\0\0\x03\0\0\0\x01\x39hello");
    let picture = frame(FIN | BINARY, b"\0\0\0\x01\0\0\0\x01jpeg");
    let both = [text.as_slice(), picture.as_slice()].concat();
    assert_eq!(run(&mut rewriter(true), &[&both]), both);
    assert_eq!(run(&mut rewriter(false), &[&both]), picture);
    // However long they are, and in however many parts.
    let long = frame(FIN | BINARY, &[&text[2..], &[b'x'; 100_000][..]].concat());
    let ping = frame(FIN | PING, b"ping");
    let parts = |first: &[u8]| {
        [
            frame(BINARY, first),
            ping.clone(),
            frame(CONTINUATION, b"hello"),
            frame(FIN, b"world"),
        ]
        .concat()
    };
    let picture_in_parts = parts(&picture[2..]);
    for (sent, heard) in [
        (long, vec![]),
        (parts(&text[2..]), ping.clone()),
        (parts(b""), ping.clone()),
        (parts(b"\0\0"), ping.clone()),
        (picture_in_parts.clone(), picture_in_parts),
        (frame(FIN | BINARY, b""), frame(FIN | BINARY, b"")),
        (frame(FIN | BINARY, b"\0\0"), frame(FIN | BINARY, b"\0\0")),
    ] {
        let mut one = rewriter(false);
        let all = [sent.as_slice(), &picture].concat();
        let expected = [heard.as_slice(), &picture].concat();
        assert_eq!(run(&mut one, &[&all]), expected);
        assert!(one.is_between());
        assert_eq!(run(&mut rewriter(true), &[&all]), all);
    }
}

#[test]
fn what_is_not_understood_or_closed_passes_and_gets_nothing_more() {
    let status = frame(FIN | TEXT, STATUS_TEXT);
    let mut masked = frame(FIN | TEXT, STATUS_TEXT);
    masked[1] |= MASKED;
    let too_long = [FIN | BINARY, 127, 0x80, 0, 0, 0, 0, 0, 0, 0].to_vec();
    for (name, odd) in [
        ("closed", frame(FIN | CLOSE, b"\x03\xe8")),
        ("closed without a reason", frame(FIN | CLOSE, b"")),
        ("reserved bits", frame(FIN | 0x40 | TEXT, STATUS_TEXT)),
        ("masked", masked),
        ("too long", too_long),
        ("unknown data", frame(FIN | 3, b"x")),
        ("unknown control", frame(FIN | 11, b"x")),
        ("control in parts", frame(PING, b"x")),
        ("long control", frame(FIN | PONG, &[0; 126])),
        ("continued without a beginning", frame(FIN, b"x")),
        (
            "begun twice",
            [frame(TEXT, b"x"), frame(TEXT, b"y")].concat(),
        ),
    ] {
        let mut one = rewriter(false);
        let all = [odd, status.clone()].concat();
        assert_eq!(run(&mut one, &[&all]), all, "{name}");
        assert!(!one.is_between(), "{name}");
    }
}

#[test]
fn nothing_is_put_into_a_message() {
    let mut one = rewriter(true);
    assert!(one.is_between());
    run(&mut one, &[&frame(TEXT, b"first")]);
    assert!(!one.is_between(), "more of it comes");
    run(&mut one, &[&frame(FIN | 9, b"ping")]);
    assert!(!one.is_between());
    run(&mut one, &[&frame(FIN, b"last")]);
    assert!(one.is_between());
    run(&mut one, &[&[FIN | TEXT]]);
    assert!(!one.is_between(), "half a header");
    run(&mut rewriter(true), &[&frame(FIN | 0x40 | TEXT, b"x")]);
    let mut odd = rewriter(true);
    run(&mut odd, &[&frame(FIN | 0x40 | TEXT, b"compressed")]);
    assert!(
        !odd.is_between(),
        "never again in a stream that is not understood"
    );
}

/// Whole messages of any kind, in parts with control frames between them.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..300),
        1 => Just(STATUS_TEXT.to_vec()),
        1 => Just(b"\0\0\0\x03\0\0\0\x01\x39hello".to_vec()),
        1 => Just([&PROGRESS_TEXT[..], &[7; 5000]].concat()),
        1 => Just(vec![7; 66_000]),
    ];
    let message = (
        prop::sample::select(vec![TEXT, BINARY]),
        payload,
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        any::<bool>(),
    );
    prop::collection::vec(message, 1..8).prop_map(|messages| {
        let mut bytes = Vec::new();
        for (kind, payload, cuts, is_pinged) in messages {
            let parts = cut(&payload, &cuts);
            for (at, part) in parts.iter().enumerate() {
                let opcode = if at == 0 { kind } else { CONTINUATION };
                let end = if at + 1 == parts.len() { FIN } else { 0 };
                bytes.extend(frame(end | opcode, part));
                if is_pinged {
                    bytes.extend(frame(FIN | PING, b"ping"));
                }
            }
        }
        bytes
    })
}

fn cut<'bytes>(bytes: &'bytes [u8], cuts: &[prop::sample::Index]) -> Vec<&'bytes [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

/// Takes the bytes and puts a message of ours wherever one may be.
fn with_ours_everywhere(bytes: &[u8]) -> Vec<u8> {
    let mut one = rewriter(true);
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = one.take(rest, &mut out);
        rest = &rest[taken..];
        if one.is_between() {
            write_text(b"ours", &mut out);
        }
    }
    out
}

/// Messages as a browser puts them together.
async fn heard(bytes: Vec<u8>) -> Vec<Message> {
    let (mut engine, client) = tokio::io::duplex(1 << 20);
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let write = async {
        engine.write_all(&bytes).await.unwrap();
        engine.shutdown().await.unwrap();
    };
    let read = async {
        let mut messages = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            if !matches!(message, Message::Ping(_)) {
                messages.push(message);
            }
        }
        messages
    };
    tokio::join!(write, read).1
}

proptest! {
    #[test]
    fn however_the_bytes_arrive_the_same_goes_on(
        bytes in messages(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        for hears_text in [true, false] {
            let whole = run(&mut rewriter(hears_text), &[&bytes]);
            let pieces = cut(&bytes, &cuts);
            prop_assert_eq!(run(&mut rewriter(hears_text), &pieces), whole);
        }
        let mut one = rewriter(true);
        run(&mut one, &[&bytes]);
        prop_assert!(one.is_between());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        run(&mut rewriter(true), &[&bytes]);
    }
}

#[tokio::test]
async fn messages_go_between_those_of_the_engine_and_large_ones_pass_whole() {
    let (mut engine, mut engine_side) = tokio::io::duplex(64 * 1024);
    let (mut client_side, mut client) = tokio::io::duplex(64 * 1024);
    let (tell, messages) = Messages::of_channel();
    let feed = Feed {
        judge: Box::new(passes_all),
        gate: Arc::default(),
        hears_text: Arc::new(|| true),
        messages,
    };
    let carried =
        tokio::spawn(async move { carry(&mut engine_side, &mut client_side, feed).await });
    let half = frame(TEXT, b"half ");
    engine.write_all(&half).await.unwrap();
    let mut read = vec![0; half.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, half);
    tell(b"ours");
    let rest = frame(FIN, b"whole");
    engine.write_all(&rest).await.unwrap();
    let expected = [rest, frame(FIN | TEXT, b"ours")].concat();
    let mut read = vec![0; expected.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, expected);
    // Also while the engine is silent.
    tell(b"more");
    let expected = frame(FIN | TEXT, b"more");
    let mut read = vec![0; expected.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, expected);
    let large = frame(FIN | BINARY, &vec![9; 500_000]);
    let sent = large.clone();
    let writes = tokio::spawn(async move {
        engine.write_all(&sent).await.unwrap();
        engine
    });
    let mut read = vec![0; large.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, large);
    drop(writes.await.unwrap());
    carried.await.unwrap().unwrap();
}

#[test]
fn messages_of_ours_never_break_those_of_the_engine() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let binary = |bytes: &[u8]| Message::binary(bytes.to_vec());
    runner
        .run(
            &prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
            |payloads| {
                let mut bytes = Vec::new();
                for payload in &payloads {
                    let half = payload.len() / 2;
                    bytes.extend(frame(BINARY, &payload[..half]));
                    bytes.extend(frame(FIN | PING, b"ping"));
                    bytes.extend(frame(FIN, &payload[half..]));
                }
                let heard = runtime.block_on(heard(with_ours_everywhere(&bytes)));
                let expected: Vec<Message> = payloads
                    .iter()
                    .flat_map(|payload| [binary(payload), Message::text("ours")])
                    .collect();
                prop_assert_eq!(heard, expected);
                Ok(())
            },
        )
        .unwrap();
}

#[tokio::test]
async fn a_browser_and_an_engine_talk_through_it() {
    let (engine, engine_side) = tokio::io::duplex(64 * 1024);
    let (client_side, client) = tokio::io::duplex(64 * 1024);
    let mut engine = WebSocketStream::from_raw_socket(engine, Role::Server, None).await;
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let (tell, messages) = Messages::of_channel();
    let feed = Feed {
        judge: Box::new(changes_status),
        gate: Arc::default(),
        hears_text: Arc::new(|| false),
        messages,
    };
    let carried = tokio::spawn(async move {
        let (mut from_engine, mut to_engine) = tokio::io::split(engine_side);
        let (mut from_client, mut to_client) = tokio::io::split(client_side);
        tokio::join!(
            carry(&mut from_engine, &mut to_client, feed),
            tokio::io::copy(&mut from_client, &mut to_engine)
        )
    });
    let status = std::str::from_utf8(STATUS_TEXT).unwrap();
    let picture = |byte| Message::binary([&[0, 0, 0, 1][..], &[byte; 500_000]].concat());
    let progress = Message::binary([&PROGRESS_TEXT[..], &[b'x'; 9000]].concat());
    let long = Message::text("x".repeat(70_000));
    let sent = [
        Message::text(status),
        picture(1),
        progress,
        long.clone(),
        picture(2),
    ];
    let engine_writes = tokio::spawn(async move {
        for message in sent {
            engine.send(message).await.unwrap();
        }
        engine
            .send(Message::Ping("are you there".into()))
            .await
            .unwrap();
        let answer = engine.next().await.unwrap().unwrap();
        assert_eq!(answer, Message::Pong("are you there".into()));
        engine
    });
    let mut next = async || client.next().await.unwrap().unwrap();
    assert_eq!(next().await, Message::text("{\"changed\":1}"));
    assert_eq!(next().await, picture(1));
    assert_eq!(next().await, long);
    tell(b"ours");
    // Between which of them it comes is left open.
    let rest = [next().await, next().await, next().await];
    for expected in [
        Message::text("ours"),
        picture(2),
        Message::Ping("are you there".into()),
    ] {
        assert!(rest.contains(&expected));
    }
    client.flush().await.unwrap();
    let mut engine = engine_writes.await.unwrap();
    tell(b"more");
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("more"));
    client.send(Message::text("from the page")).await.unwrap();
    let asked = engine.next().await.unwrap().unwrap();
    assert_eq!(asked, Message::text("from the page"));
    engine.close(None).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Close(None));
    client.flush().await.unwrap();
    let answer = engine.next().await.unwrap().unwrap();
    assert_eq!(answer, Message::Close(None));
    drop(engine);
    assert!(client.next().await.is_none());
    drop(client);
    carried.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn messages_are_put_between_large_ones_that_follow_each_other() {
    let (tell, messages) = Messages::of_channel();
    tell(b"ours");
    let feed = Feed {
        judge: Box::new(passes_all),
        gate: Arc::default(),
        hears_text: Arc::new(|| true),
        messages,
    };
    let large = frame(FIN | BINARY, &vec![7; 100_000]);
    let sent = large.repeat(20);
    let mut passed = std::io::Cursor::new(Vec::new());
    carry(&mut sent.as_slice(), &mut passed, feed)
        .await
        .unwrap();
    let ours = frame(FIN | TEXT, b"ours");
    let passed = passed.into_inner();
    assert_eq!(passed.len(), sent.len() + ours.len());
    let at = passed.windows(ours.len()).position(|window| window == ours);
    // Before the first one, or at the next border.
    assert!(at == Some(0) || at == Some(large.len()), "{at:?}");
}

#[tokio::test]
async fn the_end_of_a_job_waits_with_all_that_follows_and_what_came_before_does_not() {
    let gate: Arc<EventGate> = Arc::default();
    let run = gate.begin_for_test();
    let event = |name: &str| {
        let text = format!("{{\"type\": \"{name}\", \"data\": {{\"prompt_id\": \"{run}\"}}}}");
        frame(FIN | TEXT, text.as_bytes())
    };
    let left =
        format!("{{\"type\":\"executing\",\"data\":{{\"node\":null,\"prompt_id\":\"{run}\"}}}}");
    // Longer than what is looked at, as tracebacks are.
    let error = format!(
        "{{\"type\": \"execution_error\", \"data\": {{\"prompt_id\": \"{run}\", \"traceback\": [\"{}\"]}}}}",
        "x".repeat(9000)
    );
    let picture = frame(FIN | BINARY, &vec![1; 70_000]);
    let before = [event("execution_start"), picture.clone()].concat();
    let after = [
        frame(FIN | TEXT, error.as_bytes()),
        frame(FIN | TEXT, left.as_bytes()),
        picture,
    ]
    .concat();
    let (mut engine, mut engine_side) = tokio::io::duplex(1024 * 1024);
    let (mut client_side, mut client) = tokio::io::duplex(1024 * 1024);
    let (_tell, messages) = Messages::of_channel();
    let asked = Arc::clone(&gate);
    let feed = Feed {
        judge: Box::new(move |text, _| match event::read(text) {
            Some(event::Event::Start(id)) => asked.start(id).0,
            Some(event::Event::End(id, _)) => asked.end(id, None, false),
            _ => Passage::Now(Verdict::Pass),
        }),
        gate: Arc::clone(&gate),
        hears_text: Arc::new(|| true),
        messages,
    };
    let carried =
        tokio::spawn(async move { carry(&mut engine_side, &mut client_side, feed).await });
    let sent = [before.clone(), after.clone()].concat();
    engine.write_all(&sent).await.unwrap();
    let mut read = vec![0; before.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, before);
    // The end was met, and nothing of it has passed.
    gate.asked_for_test(&run).await;
    let mut byte = [0];
    assert!(client.read(&mut byte).now_or_never().is_none());
    gate.settle_for_test(&run);
    let mut read = vec![0; after.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, after);
    drop(engine);
    carried.await.unwrap().unwrap();
}
