use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::fakes::runner::{CODE, connection};
use super::fakes::{HEAD, Sidecar, World, key};
use crate::runner::port::{Event, Message, State};

/// The events of a stream, as a client reads them.
struct Stream {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Stream {
    async fn open(world: &World, path: &str) -> Self {
        let response = world.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event that is no comment; none at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let parsed = field("event:").zip(field("data:"));
                let parsed =
                    parsed.map(|(name, data)| (name.to_owned(), serde_json::from_str(data).unwrap()));
                self.text = rest.to_owned();
                if parsed.is_some() {
                    return parsed;
                }
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn named(&mut self, name: &str) -> Value {
        loop {
            let (found, data) = self.next().await.expect("the stream goes on");
            if found == name {
                return data;
            }
        }
    }
}

fn message(session: &str, text: &str) -> Event {
    Event::Message {
        session: key(session),
        message: Box::new(Message {
            id: "3EB0".to_owned(),
            chat: "5511999990000@s.whatsapp.net".to_owned(),
            from: "5511999990000@s.whatsapp.net".to_owned(),
            from_me: false,
            push_name: None,
            text: Some(text.to_owned()),
            timestamp: jiff::Timestamp::UNIX_EPOCH,
        }),
    }
}

fn world() -> World {
    World::new(Sidecar::default().with("u1/s1", |_| ()).with("u2/s2", |_| ()))
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_where_all_stands_and_tells_what_changes() {
    let world = world();
    world.phone.put("u1/s1", connection(State::ScanQrCode));
    let mut stream = Stream::open(&world, "/api/whatsapp/events/u1").await;
    let (name, status) = stream.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &status["sessionId"], &status["state"]),
        ("status", &json!("s1"), &json!("SCAN_QR_CODE"))
    );
    let (name, qr) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &qr["qrCode"], &qr["sessionId"]), ("qr", &json!(CODE), &json!("s1")));
    let (name, sync) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &sync["head"], &sync["held"]), ("sync", &json!(HEAD), &json!(1)));

    world.phone.put("u2/s2", connection(State::Working));
    world.phone.events.send(message("u2/s2", "not for u1")).unwrap();
    world.phone.put("u1/s1", connection(State::Working));
    let (name, status) = stream.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &status["state"], &status["connected"]),
        ("status", &json!("WORKING"), &json!(true))
    );
    world.phone.events.send(message("u1/s1", "hello")).unwrap();
    let (name, told) = stream.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &told["sessionId"], &told["message"]["text"]),
        ("message", &json!("s1"), &json!("hello"))
    );

    world.sidecar.heads.lock().unwrap().insert("u1/s1".to_owned(), "00000003-00000043-aaaaaaaa".to_owned());
    let (name, sync) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &sync["head"]), ("sync", &json!("00000003-00000043-aaaaaaaa")));
}

#[tokio::test(start_paused = true)]
async fn who_falls_behind_is_told_how_it_stands_now() {
    let world = world();
    let mut stream = Stream::open(&world, "/api/whatsapp/events/u1/s1").await;
    assert_eq!(stream.named("status").await["state"], "STOPPED");
    stream.named("sync").await;
    // More than the queue of events takes, at once.
    for _ in 0..20 {
        world.phone.put("u1/s1", connection(State::Starting));
    }
    world.phone.put("u1/s1", connection(State::Working));
    loop {
        if stream.named("status").await["state"] == "WORKING" {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_process_and_its_place_is_free_again() {
    let world = world();
    let mut stream = Stream::open(&world, "/api/whatsapp/events/u1").await;
    stream.named("sync").await;
    world.stop.cancel();
    let rest = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), rest).await.expect("the stream ends");
}

#[tokio::test(start_paused = true)]
async fn one_session_may_be_listened_to_alone() {
    let world = World::new(Sidecar::default().with("u1/s1", |_| ()).with("u1/other", |_| ()));
    let mut stream = Stream::open(&world, "/api/whatsapp/events/u1?sessionId=s1").await;
    assert_eq!(stream.next().await.unwrap().1["sessionId"], "s1");
    world.phone.put("u1/other", connection(State::Working));
    world.phone.put("u1/s1", connection(State::Working));
    let (_, status) = (stream.named("sync").await, stream.named("status").await);
    assert_eq!(status["sessionId"], "s1");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_sends_comments_so_that_no_proxy_closes_it() {
    let world = world();
    let mut stream = Stream::open(&world, "/api/whatsapp/events/u1").await;
    stream.named("sync").await;
    let begun = tokio::time::Instant::now();
    let chunk = stream.body.next().await.unwrap().unwrap();
    assert!(chunk.starts_with(b":"), "{chunk:?}");
    assert!(begun.elapsed() <= Duration::from_secs(20), "{:?}", begun.elapsed());
}
