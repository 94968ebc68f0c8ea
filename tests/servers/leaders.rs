//! A real Consul keeps what every leader has to keep, as far as it can be had without faults on
//! demand.

use std::{collections::BTreeMap, future::ready};

use nomad_firehose::leader::{Leader, consul};
use reqwest::Method;
use tokio::{runtime::Handle, task::block_in_place};

use self::{
    contract::{Backend, LOCK_DELAY, Servers, TTL},
    steps::Link,
};
use crate::consul::Agent;

#[path = "../leaders/contract.rs"]
pub mod contract;
#[path = "../leaders/outages.rs"]
mod outages;
#[path = "../leaders/steps.rs"]
pub mod steps;

const KEYS: &str = "nomad-firehose/nodes";

struct Consul(Agent);

/// Does at once what the other backends do without waiting.
fn now<T>(work: impl Future<Output = T>) -> T {
    block_in_place(|| Handle::current().block_on(work))
}

impl Backend for Consul {
    fn new() -> impl Future<Output = Self> + Send {
        ready(Self(now(Agent::start())))
    }

    fn leader(&self, _: &Link) -> Box<dyn Leader> {
        consul(self.0.api.clone(), "nomad-firehose", "nodes", TTL, LOCK_DELAY)
    }

    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        let read = async |name: &str| {
            let key = format!("{KEYS}.{name}");
            self.0.entry(&key).await.map(|it| (key, it.value))
        };
        now(async {
            let all = [read("value").await, read("cursor").await, read("cursor.0").await];
            all.into_iter().flatten().collect()
        })
    }

    fn is_free(&self) -> bool {
        now(async {
            let lock = self.0.entry(&format!("{KEYS}.lock")).await;
            let sessions = self.0.ask(Method::GET, "/v1/session/list", "").await.unwrap();
            lock.is_none_or(|it| it.session.is_none()) && sessions.as_array().unwrap().is_empty()
        })
    }

    fn damage_head(&self) {
        now(self.0.put(&format!("{KEYS}.cursor"), "by hand"));
    }

    fn damage_shard(&self) {
        now(self.0.put(&format!("{KEYS}.cursor.0"), "by hand"));
    }

    fn unreadable(&self, _: bool) {
        panic!("a Consul without access control cannot deny a read");
    }

    fn servers(&self) -> Result<&dyn Servers, &'static str> {
        Ok(self)
    }
}

impl Servers for Consul {
    fn lose_answer(&self, _: usize) {
        panic!("a real server loses no answer on demand");
    }

    fn lose_no_more(&self) -> bool {
        panic!("a real server loses no answer on demand");
    }

    fn expire(&self) {
        now(async {
            let session = self.0.holder(&format!("{KEYS}.lock")).await;
            self.0.api.destroy(&session).await.unwrap();
        });
    }
}

crate::leader_contract!(Consul: in real time,
    a_crash_lets_the_next_one_in_within_two_ttls_and_the_delay
    a_standby_stops_at_once_and_leaves_nothing_behind
    a_checkpoint_outlives_its_term
    many_tails_come_back_however_they_are_cut
    many_objects_above_the_floor_come_back
    a_damaged_head_is_told_from_one_that_is_not_there
    a_damaged_shard_costs_its_own_tails_only
    a_save_after_the_term_is_over_fails_and_changes_nothing
    a_checkpoint_that_was_overwritten_by_hand_is_saved_again
);
