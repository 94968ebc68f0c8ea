//! What every sink has to do, whatever its receiver does: real processes that publish task events
//! of a stand-in Nomad through the sink to a receiver behind a proxy.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use nomad_firehose::standin::nomad::Table;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    proxy::Way,
    world::{World, floor, noise, task, wait_received},
};
use crate::{
    firehose::{Program, bodies, wait},
    support::allocation,
};

/// A receiver, as a test sees it.
#[allow(async_fn_in_trait, reason = "only tests implement it")]
pub trait Receiver: Sized {
    /// What the log says of a receiver that cannot be reached.
    const UNREACHABLE: &'static str;
    /// What it says of credentials that are wrong.
    const DENIED: &'static str;

    /// Starts one that has received nothing.
    async fn start() -> Self;
    /// The port that it listens on.
    fn port(&self) -> u16;
    /// The sink's configuration, where the receiver seems to be at this port. It takes records
    /// of up to [`LARGE`] bytes, and has four workers.
    fn configure(&self, program: Program, port: u16) -> Program;
    /// The same with a password that is wrong.
    fn configure_wrongly(&self, program: Program, port: u16) -> Program;
    /// Everything that it has for good, in the order in which it came: id and payload.
    async fn received(&mut self) -> Vec<(String, Value)>;
    /// Whether it takes the records of the job `full`; at the start it does not.
    async fn take_full(&mut self, takes: bool);
    /// Ends as by a crash, and keeps what it has for good.
    async fn crash(&mut self);
    /// Starts again after that.
    async fn come_back(&mut self);
}

/// Larger records are refused by every receiver.
pub const LARGE: usize = 100_000;
/// Longer than it takes to notice that nothing comes.
const QUIET: Duration = Duration::from_secs(2);
/// Of each record of a list that would not be taken: 30 MB of them are more than all buffers hold,
/// and not so many that a receiver takes long over each.
const NOISE: usize = 6_000;
/// Of a process that publishes a list of any length, in a build without optimization.
const MEMORY_KIB: u64 = 96 << 10;

pub async fn records_of_one_key_stay_in_order<R: Receiver>() {
    let mut world = World::<R>::new().await;
    let names: Vec<String> = (0..20).map(|it| format!("a{it}")).collect();
    names.iter().for_each(|it| world.events("web", it, 4));
    let running = world.start();
    for _ in 0..3 {
        world.all_received().await;
        names.iter().for_each(|it| world.events("web", it, 2));
    }
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0, "nothing failed, and yet something was repeated");
    assert_eq!(received.len(), 200);
    running.stop().await;
}

pub async fn only_what_failed_is_sent_again_and_holds_up_nobody_else<R: Receiver>() {
    let mut world = World::<R>::new().await;
    for it in 0..10 {
        world.events("web", &format!("w{it}"), 2);
        world.events("full", &format!("f{it}"), 2);
    }
    let running = world.start();
    running.logs("some records were not delivered").await;
    wait_received(&mut world.receiver, "those of the job that does not fail come", |it| {
        it.iter().filter(|(_, body)| body["JobID"] == "web").count() == 20
    })
    .await;
    (0..10).for_each(|it| world.events("web", &format!("w{it}"), 1));
    wait_received(&mut world.receiver, "more of them come", |it| {
        it.iter().filter(|(_, body)| body["JobID"] == "web").count() == 30
    })
    .await;
    world.receiver.take_full(true).await;
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0, "what did not fail was sent again");
    running.logs("takes records again").await;
    let log = running.stop().await.log;
    let said = log.matches("some records were not delivered").count();
    assert!(said <= 2, "said {said} times:\n{log}");
}

pub async fn a_lost_answer_means_a_duplicate_and_never_a_loss<R: Receiver>() {
    let mut world = World::<R>::new().await;
    world.events("web", "a", 2);
    let running = world.start();
    world.all_received().await;
    // What has come has been answered for: only what comes next is not.
    wait("a checkpoint", async || floor(world.dir.path())).await;
    world.proxy.set(Way::Deaf);
    world.events("web", "a", 3);
    world.events("web", "b", 3);
    // The last of each has come, and nobody was told.
    wait_received(&mut world.receiver, "something comes without an answer", |it| it.len() > 2)
        .await;
    sleep(Duration::from_millis(300)).await;
    world.proxy.set(Way::Open);
    world.events("web", "c", 1);
    let received = world.all_received().await;
    running.stop().await;
    assert!(world.check(&received) > 0, "an answer was lost, and nothing was repeated");
}

pub async fn a_record_that_is_refused_is_kept_and_the_others_go_on<R: Receiver>() {
    refused::<R>(|world, name| world.events("bad", name, 1), "bad").await;
}

pub async fn a_record_that_is_too_large_is_kept_and_the_others_go_on<R: Receiver>() {
    refused::<R>(|world, name| world.large_event(name), "web").await;
}

async fn refused<R: Receiver>(bad: impl Fn(&mut World<R>, &str), job: &str) {
    let mut world = World::<R>::new().await;
    (0..8).for_each(|it| world.events("web", &format!("a{it}"), 2));
    bad(&mut world, "among-others");
    (0..8).for_each(|it| world.events("web", &format!("b{it}"), 2));
    world.made.retain(|task, _| !task.starts_with("bad/"));
    let running = world.start();
    world.all_received().await;
    running.logs("rejected a record for good").await;
    bad(&mut world, "alone");
    world.made.retain(|task, _| !task.starts_with("bad/"));
    running.logs_times(2, "rejected a record for good").await;
    world.events("web", "c", 1);
    let received = world.all_received().await;
    world.check(&received);
    running.stop().await;
    let kept = bodies(&fs::read_to_string(world.dead_letters()).unwrap());
    for letter in &kept {
        assert!(letter["id"].as_str().unwrap().starts_with("allocations/"), "{}", letter["id"]);
        assert!(!letter["reason"].as_str().unwrap().is_empty());
    }
    let tasks: Vec<String> = kept.iter().map(|it| task(&it["body"])).collect();
    assert_eq!(tasks, [format!("{job}/among-others"), format!("{job}/alone")]);
}

pub async fn a_receiver_that_is_down_at_the_start_is_waited_for<R: Receiver>() {
    let mut world = World::<R>::new().await;
    world.proxy.set(Way::Cut);
    world.events("web", "a", 3);
    let running = world.start();
    running.logs(R::UNREACHABLE).await;
    assert_eq!(floor(world.dir.path()), None);
    world.proxy.set(Way::Open);
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0);
    running.logs("takes records again").await;
    running.stop().await;
}

pub async fn a_receiver_that_crashes_while_it_receives_loses_nothing<R: Receiver>() {
    let mut world = World::<R>::new().await;
    let running = world.start();
    for round in 0..20 {
        (0..10).for_each(|it| world.events("web", &format!("{round}-{it}"), 5));
        if round == 10 {
            world.receiver.crash().await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    running.logs(R::UNREACHABLE).await;
    world.receiver.come_back().await;
    let received = world.all_received().await;
    world.check(&received);
    running.stop().await;
}

pub async fn a_slow_receiver_slows_reading_down_and_memory_stays_flat<R: Receiver>() {
    let mut world = World::<R>::new().await;
    const COUNT: usize = 5_000;
    let read = Arc::new(AtomicUsize::new(0));
    let reader = read.clone();
    world.nomad.serve_generated(Table::Allocations, 1_000_000, move || {
        let reader = reader.clone();
        (0..COUNT).map(move |number| {
            reader.fetch_max(number, Ordering::Relaxed);
            let mut element = allocation(&format!("{number:06}"), &[1]);
            element.insert("ModifyIndex".into(), (1_000 + number).into());
            // What compresses well would be in the buffers of a few sockets.
            element.insert("ClientDescription".into(), noise(number, NOISE).into());
            Bytes::from(Value::Object(element).to_string())
        })
    });
    let running = world.start();
    wait_received(&mut world.receiver, "it begins", |it| !it.is_empty()).await;
    world.proxy.set(Way::Held);
    let mut last = usize::MAX;
    wait("nothing more is read", async || {
        let now = read.load(Ordering::Relaxed);
        let still = now == last;
        last = now;
        sleep(Duration::from_millis(500)).await;
        still.then_some(())
    })
    .await;
    assert!(last < COUNT - 1, "the whole list was read although nothing was taken");
    let held = running.peak_kib();
    assert!(held < MEMORY_KIB, "{held} KiB while the receiver was slow");
    world.proxy.set(Way::Open);
    wait_received(&mut world.receiver, "everything comes", |it| it.len() == COUNT).await;
    let peak = running.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    running.stop().await;
}

pub async fn a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on<R: Receiver>() {
    let mut world = World::<R>::new().await;
    world.events("web", "a", 2);
    let running = world.start();
    world.all_received().await;
    wait("a checkpoint", async || floor(world.dir.path())).await;
    world.proxy.set(Way::Held);
    world.events("web", "a", 2);
    world.events("web", "b", 2);
    // The source is read once a second; by then the call is under way.
    sleep(QUIET).await;
    let asked = Instant::now();
    running.stop().await;
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(4_000), "it took {took:?} to stop");
    world.proxy.set(Way::Open);
    let next = world.start();
    // All may be there already, and it is to hear that it is asked to stop.
    next.logs("elected").await;
    let received = world.all_received().await;
    // What was on its way when it stopped may have come after all; what was confirmed has not
    // come again.
    world.check(&received);
    let again: BTreeSet<_> = received.iter().skip(2).map(|(id, _)| id).collect();
    assert!(received[..2].iter().all(|(id, _)| !again.contains(id)));
    next.stop().await;
}

pub async fn wrong_credentials_stop_everything_and_lose_nothing<R: Receiver>() {
    let mut world = World::<R>::new().await;
    world.events("web", "a", 3);
    let running = world.receiver.configure_wrongly(world.program(), world.proxy.port()).start();
    running.logs(R::DENIED).await;
    sleep(QUIET).await;
    let finished = running.stop().await;
    assert!(finished.log.contains("ERROR"), "{}", finished.log);
    assert_eq!(finished.log.matches(R::DENIED).count(), 1, "{}", finished.log);
    assert!(world.receiver.received().await.is_empty());
    assert_eq!(floor(world.dir.path()), None);
    let running = world.start();
    let received = world.all_received().await;
    assert_eq!(world.check(&received), 0);
    running.stop().await;
}

/// The tests of a sink against one receiver.
#[macro_export]
macro_rules! sink_contract {
    ($receiver:ty) => {
        $crate::sink_contract!($receiver: of the common ones,
            only_what_failed_is_sent_again_and_holds_up_nobody_else
            a_record_that_is_refused_is_kept_and_the_others_go_on
        );
    };
    ($receiver:ty: of the common ones, $($more:ident)*) => {
        $crate::sink_contract!($receiver: of the quick ones,
            $($more)*
            a_slow_receiver_slows_reading_down_and_memory_stays_flat
        );
    };
    ($receiver:ty: of the quick ones, $($more:ident)*) => {
        $crate::sink_contract!($receiver:
            $($more)*
            records_of_one_key_stay_in_order
            a_lost_answer_means_a_duplicate_and_never_a_loss
            a_record_that_is_too_large_is_kept_and_the_others_go_on
            a_receiver_that_is_down_at_the_start_is_waited_for
            a_receiver_that_crashes_while_it_receives_loses_nothing
            a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
            wrong_credentials_stop_everything_and_lose_nothing
        );
    };
    ($receiver:ty: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::sinks::contract::$name::<$receiver>().await;
            }
        )*
    };
}
