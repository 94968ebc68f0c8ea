//! The backends, each with the stand-in for its servers.

use std::{collections::BTreeMap, fs, path::PathBuf};

use nomad_firehose::{
    api,
    leader::{Leader, consul, nomad, solo},
    standin,
};

use super::{
    contract::{Backend, LOCK_DELAY, Servers, TTL},
    steps::Link,
};
use crate::support::{Version, client};

const PREFIX: &str = "nomad-firehose";
const STREAM: &str = "nodes";
/// More requests than a step makes.
const ENOUGH: usize = 64;

pub struct Consul(standin::consul::Consul);

impl Backend for Consul {
    async fn new() -> Self {
        Self(standin::consul::Consul::new())
    }

    fn leader(&self, link: &Link) -> Box<dyn Leader> {
        let api = api::Consul::stand_in(link.to(self.0.router()), client());
        consul(api, PREFIX, STREAM, TTL, LOCK_DELAY)
    }

    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        let names = ["value", "cursor", "cursor.0", "cursor.1"];
        let key = |name: &&str| format!("{PREFIX}/{STREAM}.{name}");
        names.iter().map(key).filter_map(|it| Some((it.clone(), self.0.value(&it)?))).collect()
    }

    fn is_free(&self) -> bool {
        let lock = self.0.entry(&format!("{PREFIX}/{STREAM}.lock"));
        lock.is_none_or(|it| it.session.is_none()) && self.0.sessions().is_empty()
    }

    fn damage_head(&self) {
        self.0.put(&format!("{PREFIX}/{STREAM}.cursor"), "by hand");
    }

    fn damage_shard(&self) {
        self.0.put(&format!("{PREFIX}/{STREAM}.cursor.0"), "by hand");
    }

    fn unreadable(&self, on: bool) {
        self.0.require_token(on.then(|| "secret".to_owned()));
    }

    fn servers(&self) -> Result<&dyn Servers, &'static str> {
        Ok(self)
    }
}

impl Servers for Consul {
    fn lose_answer(&self, after: usize) {
        (0..after).for_each(|_| self.0.script("/", pass_through()));
        self.0.script("/", standin::Fault::LoseAnswer);
    }

    fn lose_no_more(&self) -> bool {
        self.0.forget_faults() == 0
    }

    fn expire(&self) {
        let lock = self.0.entry(&format!("{PREFIX}/{STREAM}.lock"));
        self.0.expire(&lock.and_then(|it| it.session).unwrap());
    }
}

fn pass_through() -> standin::Fault {
    standin::Fault::Delay(std::time::Duration::ZERO)
}

/// Nomad with a management token, which is shown who holds a lock.
pub struct Nomad(pub standin::nomad::Nomad);

impl Nomad {
    fn path(name: &str) -> String {
        format!("{PREFIX}/{STREAM}/{name}")
    }

    fn put(&self, name: &str) {
        let items = BTreeMap::from([("note".to_owned(), "by hand".to_owned())]);
        self.0.put_variable("default", &Self::path(name), items);
    }
}

impl Backend for Nomad {
    async fn new() -> Self {
        Self(standin::nomad::Nomad::new(Version::V2_0))
    }

    fn leader(&self, link: &Link) -> Box<dyn Leader> {
        let api = api::Nomad::stand_in(link.to(self.0.router()), client());
        nomad(api.variables("default"), PREFIX, STREAM, TTL, LOCK_DELAY).unwrap()
    }

    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        let paths = self.0.variables().into_iter().filter(|it| *it != Self::path("lock"));
        let saved = paths.map(|it| (it.clone(), self.0.variable("default", &it).unwrap().items));
        // A variable that only says whose it is holds nothing that was saved.
        let saved = saved.filter(|(_, items)| items.len() > 2);
        saved.map(|(path, items)| (path, format!("{items:?}").into_bytes())).collect()
    }

    fn is_free(&self) -> bool {
        self.0.variable("default", &Self::path("lock")).is_none_or(|it| it.lock.is_none())
    }

    fn damage_head(&self) {
        self.put("cursor");
    }

    fn damage_shard(&self) {
        self.put("tails/0");
    }

    fn unreadable(&self, on: bool) {
        self.0.deny_variables(on.then(|| Self::path("cursor")));
    }

    fn servers(&self) -> Result<&dyn Servers, &'static str> {
        Ok(self)
    }
}

impl Servers for Nomad {
    fn lose_answer(&self, after: usize) {
        (0..after).for_each(|_| self.0.script("/", pass_through()));
        self.0.script("/", standin::Fault::LoseAnswer);
    }

    fn lose_no_more(&self) -> bool {
        self.0.forget_faults() == 0
    }

    fn expire(&self) {
        self.0.expire_lock("default", &Self::path("lock"));
    }
}

/// Nomad with any other token, from which it is hidden who holds a lock.
pub struct NomadHidden(Nomad);

impl Backend for NomadHidden {
    async fn new() -> Self {
        let nomad = Nomad::new().await;
        nomad.0.hide_locks(true);
        Self(nomad)
    }

    fn leader(&self, link: &Link) -> Box<dyn Leader> {
        self.0.leader(link)
    }

    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.saved()
    }

    fn is_free(&self) -> bool {
        self.0.is_free()
    }

    fn damage_head(&self) {
        self.0.damage_head();
    }

    fn damage_shard(&self) {
        self.0.damage_shard();
    }

    fn unreadable(&self, on: bool) {
        self.0.unreadable(on);
    }

    fn servers(&self) -> Result<&dyn Servers, &'static str> {
        self.0.servers()
    }
}

/// Files in a directory.
pub struct Solo(tempfile::TempDir);

impl Solo {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{STREAM}.{name}"))
    }
}

impl Backend for Solo {
    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn leader(&self, _: &Link) -> Box<dyn Leader> {
        solo(Some(self.0.path().to_owned()), STREAM)
    }

    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        let names = (0..ENOUGH).map(|it| format!("cursor.{it}")).chain(["cursor".to_owned()]);
        names.filter_map(|it| Some((it.clone(), fs::read(self.path(&it)).ok()?))).collect()
    }

    fn is_free(&self) -> bool {
        let file = fs::OpenOptions::new().write(true).open(self.path("lock")).unwrap();
        file.try_lock().is_ok()
    }

    fn damage_head(&self) {
        fs::write(self.path("cursor"), "by hand").unwrap();
    }

    fn damage_shard(&self) {
        fs::write(self.path("cursor.0"), "by hand").unwrap();
    }

    fn unreadable(&self, on: bool) {
        let (file, aside) = (self.path("cursor"), self.path("aside"));
        if on {
            fs::rename(&file, aside).unwrap();
            fs::create_dir(file).unwrap();
        } else {
            fs::remove_dir(&file).unwrap();
            fs::rename(aside, file).unwrap();
        }
    }

    fn servers(&self) -> Result<&dyn Servers, &'static str> {
        Err("a file is neither cut off nor loses an answer")
    }
}

mod by_consul {
    crate::leader_contract!(super::Consul);
}

mod by_nomad {
    crate::leader_contract!(super::Nomad);
}

mod by_nomad_without_a_management_token {
    crate::leader_contract!(super::NomadHidden);
}

mod by_a_file {
    crate::leader_contract!(
        super::Solo: without servers, since "a file is neither cut off nor loses an answer"
    );
}
