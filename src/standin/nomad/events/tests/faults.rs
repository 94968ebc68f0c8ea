use super::*;

const CLOSED: &str = "subscription closed by server, client should resubscribe";

#[tokio::test(start_paused = true)]
async fn without_rights_the_old_version_answers_500_and_the_newer_one_nothing() {
    for token in [None, Some("zzz"), Some(NODE)] {
        let nomad = with_batches(Version::V1_0, 1);
        nomad.require_token(Some("right".to_owned()));
        let mut stream = Stream::open_with(&nomad, "", token).await;
        assert_eq!(stream.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(stream.headers["content-type"], "application/json");
        assert_eq!(stream.rest().await, ("Permission denied".to_owned(), Ended::Whole));

        let nomad = with_batches(Version::V2_0, 1);
        nomad.require_token(Some("right".to_owned()));
        let mut stream = Stream::open_with(&nomad, "", token).await;
        assert_eq!(stream.status, StatusCode::OK);
        assert_eq!(stream.piece(Duration::from_secs(600)).await, None);
        assert_eq!(stream.rest().await.1, Ended::Open);
        assert_eq!(nomad.subscribers(), 0);
        assert_eq!(Stream::open_with(&nomad, "", Some("right")).await.indexes().await, [2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_token_and_with_a_restored_state() {
    for (version, end) in [(Version::V1_0, CLOSED), (Version::V2_0, "")] {
        let nomad = with_batches(version, 1);
        let snapshot = nomad.snapshot();
        let mut stream = Stream::open_with(&nomad, "", Some("right")).await;
        nomad.require_token(Some("right".to_owned()));
        assert_eq!(stream.indexes().await, [2]);
        nomad.require_token(Some("another".to_owned()));
        assert_eq!(stream.rest().await, (end.to_owned(), Ended::Whole));
        nomad.require_token(None);

        let mut stream = Stream::open(&nomad, "").await;
        assert_eq!(stream.indexes().await, [2]);
        nomad.close_subscriptions();
        assert_eq!(stream.rest().await, (end.to_owned(), Ended::Whole));
        assert_eq!(Stream::open(&nomad, "").await.indexes().await, [2]);

        let mut stream = Stream::open(&nomad, "").await;
        assert_eq!(stream.indexes().await, [2]);
        nomad.restore(&snapshot);
        assert_eq!(stream.rest().await, (end.to_owned(), Ended::Whole));
        assert_eq!(Stream::open(&nomad, "").await.indexes().await, [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_broker_the_old_version_says_so_and_the_newer_one_nothing() {
    let old = Nomad::new(Version::V1_0);
    old.disable_events();
    let mut stream = Stream::open(&old, "").await;
    assert_eq!(stream.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(stream.rest().await.0, "EventBroker not configured");
    let new = Nomad::new(Version::V2_0);
    new.disable_events();
    let mut stream = Stream::open(&new, "").await;
    assert_eq!(stream.status, StatusCode::OK);
    assert_eq!(stream.piece(Duration::from_secs(600)).await, None);
}

#[tokio::test(start_paused = true)]
async fn skipped_batches_are_lost_and_repeated_ones_come_twice() {
    let nomad = with_batches(Version::V2_0, 1);
    let mut stream = Stream::open(&nomad, "").await;
    nomad.skip_events(2);
    write(&nomad, 3);
    nomad.repeat_event(2);
    assert_eq!(stream.indexes().await, [2, 5, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_has_heartbeats_only_and_catches_up() {
    let nomad = with_batches(Version::V2_0, 1);
    let mut stream = Stream::open(&nomad, "").await;
    assert_eq!(stream.indexes().await, [2]);
    nomad.mute_events(true);
    write(&nomad, 2);
    assert_eq!(stream.indexes().await, [0; 0]);
    assert_eq!(stream.piece(Duration::from_secs(31)).await.unwrap(), "{}");
    assert_eq!(Stream::open(&nomad, "?index=4").await.indexes().await, [2]);
    nomad.mute_events(false);
    assert_eq!(stream.rest().await.0.lines().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_has_not_even_heartbeats() {
    let nomad = with_batches(Version::V2_0, 1);
    let mut stream = Stream::open(&nomad, "").await;
    assert_eq!(stream.indexes().await, [2]);
    let silence = Duration::from_secs(600);
    nomad.stall_events(true);
    write(&nomad, 1);
    assert_eq!(stream.piece(silence).await, None);
    assert_eq!(Stream::open(&nomad, "").await.piece(silence).await, None);
    nomad.stall_events(false);
    assert_eq!(stream.indexes().await, [3]);
    nomad.partition(true);
    write(&nomad, 1);
    assert_eq!(stream.piece(silence).await, None);
    nomad.partition(false);
    assert_eq!(stream.indexes().await, [4]);
}

#[tokio::test(start_paused = true)]
async fn text_is_written_between_the_batches_into_the_open_streams() {
    let nomad = with_batches(Version::V1_0, 1);
    let mut stream = Stream::open(&nomad, "").await;
    let mut behind = Stream::open(&nomad, "?topic=Node").await;
    nomad.send_event_text("oops");
    write(&nomad, 1);
    let (text, _) = stream.rest().await;
    assert_eq!(text.matches("}]}\noops{\"Index\":3,").count(), 1, "{text}");
    assert_eq!(behind.rest().await, ("{}\noops".to_owned(), Ended::Open));
    assert!(!Stream::open(&nomad, "").await.rest().await.0.contains("oops"));
}

#[tokio::test(start_paused = true)]
async fn a_recorded_stream_is_sent_as_it_is_and_stays_open() {
    let nomad = with_batches(Version::V2_0, 1);
    let recorded = "{}\n{\"Index\":7,\"Events\":[]}\n";
    nomad.serve_stream(Bytes::from(recorded));
    let mut stream = Stream::open(&nomad, "?index=2").await;
    write(&nomad, 1);
    assert_eq!(stream.rest().await, (recorded.to_owned(), Ended::Open));
    assert_eq!(stream.piece(Duration::from_secs(31)).await.unwrap(), "{}");
    nomad.serve_stream(None);
    assert_eq!(Stream::open(&nomad, "").await.indexes().await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_come_in_pieces_of_any_size() {
    let nomad = with_batches(Version::V2_0, 3);
    let (whole, _) = Stream::open(&nomad, "").await.rest().await;
    for size in [1, 7, whole.len() - 1, 100_000] {
        nomad.split_events(size);
        let mut stream = Stream::open(&nomad, "").await;
        let mut pieces = Vec::new();
        while let Some(piece) = stream.piece(Duration::from_millis(1)).await {
            pieces.push(piece);
        }
        assert_eq!(pieces.len(), whole.len().div_ceil(size));
        assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() == size));
        assert_eq!(pieces.concat(), whole.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn open_streams_are_counted() {
    let nomad = Nomad::new(Version::V1_0);
    let mut first = Stream::open(&nomad, "").await;
    let second = Stream::open(&nomad, "").await;
    assert_eq!(nomad.subscribers(), 2);
    drop(second);
    assert_eq!(nomad.subscribers(), 1);
    nomad.close_subscriptions();
    assert_eq!(first.rest().await.1, Ended::Whole);
    assert_eq!(nomad.subscribers(), 0);
}

#[tokio::test(start_paused = true)]
async fn scripted_faults_hit_the_stream_as_any_request() {
    let nomad = with_batches(Version::V2_0, 1);
    let path = "/v1/event/stream";
    nomad.script(path, Fault::status(403, "Permission denied"));
    let mut stream = Stream::open(&nomad, "").await;
    assert_eq!(stream.status, StatusCode::FORBIDDEN);
    assert_eq!(stream.rest().await, ("Permission denied".to_owned(), Ended::Whole));

    nomad.script(path, Fault::LoseAnswer);
    assert_eq!(Stream::open(&nomad, "").await.status, StatusCode::INTERNAL_SERVER_ERROR);

    let (body, content_type) = (Bytes::from("<html>"), "text/html");
    nomad.script(path, Fault::GarbageBody { body, content_type });
    assert_eq!(Stream::open(&nomad, "").await.rest().await.0, "<html>");

    nomad.script(path, Fault::CutBody { after_bytes: 10 });
    let cut = Stream::open(&nomad, "").await.rest().await;
    assert_eq!(cut, ("{}\n{\"Index".to_owned(), Ended::Broken));

    nomad.script(path, Fault::Delay(Duration::from_secs(7)));
    let begin = Instant::now();
    assert_eq!(Stream::open(&nomad, "").await.indexes().await, [2]);
    assert!(begin.elapsed() >= Duration::from_secs(7));

    nomad.script(path, Fault::Hang);
    let hanging = timeout(Duration::from_secs(600), Stream::open(&nomad, "")).await;
    assert!(hanging.is_err());
}

#[tokio::test]
async fn over_tcp_lines_arrive_at_once_and_only_the_old_version_sends_chunks() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for version in BOTH {
        let nomad = Nomad::new(version);
        let listener = crate::standin::serve::bind().await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = crate::standin::serve::serve(nomad.router(), listener, std::future::pending());
        let client = async {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let ask = b"GET /v1/event/stream HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
            socket.write_all(ask).await.unwrap();
            let mut got = String::new();
            let mut until = async |end: &str| {
                while !got.ends_with(end) {
                    let mut bytes = [0; 4096];
                    let count = socket.read(&mut bytes).await.unwrap();
                    assert_ne!(count, 0, "{got}");
                    got.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
                }
                got.clone()
            };
            let chunks = version == Version::V1_0;
            let begin = until(if chunks { "2\r\n{}\r\n1\r\n\n\r\n" } else { "\r\n\r\n{}\n" }).await;
            assert_eq!(begin.contains("\r\nTransfer-Encoding: chunked\r\n"), chunks, "{begin}");
            assert_eq!(begin.contains("\r\nConnection: close\r\n"), !chunks, "{begin}");
            nomad.upsert(Table::Evaluations, evaluation("e"));
            until(if chunks { "}]}\r\n1\r\n\n\r\n" } else { "}]}\n" }).await;
            nomad.close_subscriptions();
            until(if chunks { "resubscribe\r\n0\r\n\r\n" } else { "}]}\n" }).await;
        };
        tokio::select! {
            served = server => served.unwrap(),
            () = client => {}
        }
    }
}
