use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_begins_at_its_index_or_at_the_nearest_one_there_is() {
    for version in BOTH {
        let nomad = Nomad::new(version);
        nomad.set_index(9);
        nomad.upsert(Table::Evaluations, evaluation("a"));
        nomad.set_index(19);
        nomad.upsert(Table::Evaluations, evaluation("b"));
        nomad.upsert(Table::Evaluations, evaluation("c"));
        for (query, indexes) in [
            ("", vec![10, 20, 21]),
            ("?index=0", vec![10, 20, 21]),
            ("?index=1", vec![10, 20, 21]),
            ("?index=10", vec![10, 20, 21]),
            ("?index=11", vec![20, 21]),
            ("?index=20", vec![20, 21]),
            ("?index=21", vec![21]),
            ("?index=22", vec![21]),
            ("?index=999999", vec![21]),
            ("?index=-1", vec![21]),
        ] {
            assert_eq!(Stream::open(&nomad, query).await.indexes().await, indexes, "{query}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_first_of_several_lines_with_its_index() {
    let nomad = with_batches(Version::V2_0, 1);
    let index =
        nomad.upsert_many([(Table::Jobs, evaluation("j")), (Table::Evaluations, evaluation("e"))]);
    let mut stream = Stream::open(&nomad, &format!("?index={index}")).await;
    assert_eq!(stream.kinds().await, [["Job JobRegistered"], ["Evaluation JobRegistered"]]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_buffer_is_waited_for() {
    let nomad = Nomad::new(Version::V2_0);
    let mut stream = Stream::open(&nomad, "?index=77").await;
    assert_eq!(stream.rest().await, ("{}\n".to_owned(), Ended::Open));
    let write = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        nomad.upsert(Table::Evaluations, evaluation("e"))
    };
    let begin = Instant::now();
    let (piece, index) = tokio::join!(stream.piece(Duration::from_secs(10)), write);
    assert_eq!(begin.elapsed(), Duration::from_secs(7));
    assert!(piece.unwrap().starts_with(format!("{{\"Index\":{index},").as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_batches_are_kept_and_a_gap_has_no_mark() {
    let nomad = with_batches(Version::V1_0, 130);
    let indexes = Stream::open(&nomad, "?index=5").await.indexes().await;
    assert_eq!(indexes, (32..=131).collect::<Vec<_>>());
    nomad.set_event_buffer(3);
    assert_eq!(Stream::open(&nomad, "?index=5").await.indexes().await, [129, 130, 131]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_ends_when_its_batch_is_dropped() {
    for (version, end) in [(Version::V1_0, "event dropped from buffer"), (Version::V2_0, "")] {
        let nomad = Nomad::new(version);
        nomad.set_event_buffer(2);
        let mut stream = Stream::open(&nomad, "").await;
        assert_eq!(stream.rest().await.1, Ended::Open);
        write(&nomad, 2);
        assert_eq!(stream.indexes().await, [2, 3]);
        write(&nomad, 3);
        assert_eq!(stream.rest().await, (end.to_owned(), Ended::Whole));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_empties_the_buffer_and_publishes_the_last_batches_again() {
    for (version, ended) in [(Version::V1_0, Ended::Broken), (Version::V2_0, Ended::Whole)] {
        let nomad = with_batches(version, 9);
        let mut stream = Stream::open(&nomad, "").await;
        assert_eq!(stream.indexes().await.len(), 9);
        nomad.restart_broker(2);
        assert_eq!(stream.rest().await, (String::new(), ended));
        assert_eq!(Stream::open(&nomad, "?index=3").await.indexes().await, [9, 10]);
        nomad.restart_broker(0);
        let index = nomad.upsert(Table::Evaluations, evaluation("e"));
        assert_eq!(Stream::open(&nomad, "?index=3").await.indexes().await, [index]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_behind_sends_its_newest_again_and_catches_up() {
    let nomad = with_batches(Version::V2_0, 3);
    let snapshot = nomad.snapshot();
    let (third, fourth) = (nomad.index(), nomad.upsert(Table::Jobs, evaluation("j")));
    let mut elsewhere = Stream::open(&nomad, &format!("?index={fourth}")).await;
    nomad.lag(Some(snapshot.clone()));
    let mut behind = Stream::open(&nomad, &format!("?index={fourth}")).await;
    assert_eq!(behind.indexes().await, [third]);
    let fifth = nomad.upsert(Table::Jobs, evaluation("k"));
    assert_eq!(behind.indexes().await, [0; 0]);
    assert_eq!(elsewhere.indexes().await, [fourth, fifth]);
    nomad.follow_events(Some(fourth));
    assert_eq!(behind.indexes().await, [fourth]);
    nomad.lag(None);
    assert_eq!(behind.indexes().await, [fifth]);
    nomad.script("/v1/event", Fault::Lagging(snapshot));
    let mut once = Stream::open(&nomad, &format!("?index={fourth}")).await;
    assert_eq!(once.indexes().await, [third]);
}
