//! What a check finds in Consul: reads, and questions about rights; nothing is written.

use super::{Consul, foreign};
use crate::{
    api::{self, Access, Agent, Lock},
    cursor::Loading,
    error::{Chain, brief},
    finding::{Finding, LIMIT, within},
    leader::{checkpoint, skipped},
};

const REACHED: &str = "consul";
const TOKEN: &str = "consul token";
const READ: &str = "consul read";
const WRITE: &str = "consul write";
const SESSION: &str = "consul session";
/// A node that there is not: who may create its sessions may create those of every node.
const NO_NODE: &str = "~";
/// The node of sessions, where its name is not told.
const NODE: &str = "the agent's node";
const LOCK: &str = "lock";
const CHECKPOINT: &str = "checkpoint";

impl Consul {
    /// A row for each thing that an election and a checkpoint need.
    pub(super) async fn findings(&self) -> Vec<Finding> {
        let name = self.consul.name();
        let address = name.strip_prefix("Consul at ").unwrap_or(name);
        let agent = self.consul.agent().await;
        let keys = format!("{}/*", self.keys.prefix);
        let node = agent.as_ref().ok().map(|it| it.node.clone());
        let reached = match agent {
            Ok(Agent { version, node }) => Finding::works(
                REACHED,
                address,
                format!("version {}, node {}", brief(&version), brief(&node)),
            ),
            Err(err) if err.is_unreachable() => {
                let (lock, cursor) = (self.keys.lock.as_str(), self.keys.cursor.as_str());
                let token = self.consul.token();
                let rows = [
                    (TOKEN, &*token),
                    (READ, &*keys),
                    (WRITE, &*keys),
                    (SESSION, NODE),
                    (LOCK, lock),
                    (CHECKPOINT, cursor),
                ];
                let failed = Finding::fails(REACHED, address, Chain(&err).to_string());
                return std::iter::once(failed).chain(skipped("Consul", &rows)).collect();
            }
            Err(err) if err.is_forbidden() => {
                Finding::works(REACHED, address, "it tells its version only with `agent` read")
            }
            Err(err) => Finding::fails(REACHED, address, Chain(&err).to_string()),
        };
        let source = self.consul.token();
        let token = async { token(&source, self.consul.own_token().await) };
        let (token, [read, lock, checkpoint], write, session) = tokio::join!(
            within(TOKEN, &source, LIMIT, token),
            self.read_findings(&keys),
            within(WRITE, &keys, LIMIT, self.write_finding(&keys)),
            within(SESSION, NODE, LIMIT, self.session_finding(node)),
        );
        vec![reached, token, read, write, session, lock, checkpoint]
    }

    /// Whether keys can be read, and what is in them.
    async fn read_findings(&self, keys: &str) -> [Finding; 3] {
        let (lock, cursor) = (&self.keys.lock, &self.keys.cursor);
        let read = async {
            let locked = self.consul.read(lock, None).await?;
            let head = self.consul.read(cursor, None).await?;
            let value = self.consul.read(&self.keys.value, None).await?;
            Ok::<_, api::ApiError>((locked, head, value))
        };
        let (locked, head, value) = match read.await {
            Ok(read) => read,
            Err(err) => {
                let rule = if err.is_forbidden() {
                    format!("; the token needs {}", self.key_rule())
                } else {
                    String::new()
                };
                let why = "the keys cannot be read";
                return [
                    Finding::fails(READ, keys, format!("{}{rule}", Chain(&err))),
                    Finding::skipped(LOCK, lock, why),
                    Finding::skipped(CHECKPOINT, cursor, why),
                ];
            }
        };
        let lock = match locked.lock() {
            Lock::Free => Finding::works(LOCK, lock, "nobody holds it"),
            Lock::Held(session) => Finding::works(LOCK, lock, self.held_by(&session).await),
            Lock::Foreign { flags } => Finding::fails(LOCK, lock, foreign(lock, flags)),
        };
        let head = head.entry.map(|it| it.value);
        let value = value.entry.map(|it| it.value);
        let (saved, _) = Loading::new(head.as_deref()).finish(value.as_deref());
        [Finding::works(READ, keys, ""), lock, checkpoint(cursor, &saved)]
    }

    async fn held_by(&self, session: &str) -> String {
        let holder = self.consul.holder(session).await.ok().flatten();
        let whose = holder.map(|it| format!(", {} of node {}", brief(&it.name), brief(&it.node)));
        format!("held by session {}{}", brief(session), whose.unwrap_or_default())
    }

    async fn write_finding(&self, keys: &str) -> Finding {
        let rule = format!("the token needs {}", self.key_rule());
        let (shard, key) = (format!("{}.0", self.keys.cursor), &self.keys);
        let wanted = [&key.lock, &key.value, &key.cursor, &shard];
        let wanted = wanted.map(|it| Access::WriteKey(it));
        if self.consul.is_apart() {
            return Finding::not_testable(WRITE, keys, format!("in a namespace of Consul; {rule}"));
        }
        match self.consul.may(&wanted).await {
            Ok(None) => Finding::works(WRITE, keys, "ACLs are off"),
            Ok(Some(may)) if may.iter().all(|it| *it) => Finding::works(WRITE, keys, ""),
            Ok(Some(_)) => Finding::fails(WRITE, keys, rule),
            Err(err) if err.is_forbidden() => {
                Finding::fails(WRITE, keys, format!("{}; {rule}", Chain(&err)))
            }
            Err(_) => Finding::not_testable(WRITE, keys, format!("without writing; {rule}")),
        }
    }

    /// Whether sessions can be created. They belong to the node of the agent, which not every
    /// token is told.
    async fn session_finding(&self, node: Option<String>) -> Finding {
        let at = node.as_ref().map_or(NODE.to_owned(), |it| format!("node {}", brief(it)));
        let rule = "the token needs `session_prefix \"\" { policy = \"write\" }`, or `session` with \
                    the name of the agent's node";
        if self.consul.is_apart() {
            let detail = format!("in a namespace of Consul; {rule}");
            return Finding::not_testable(SESSION, at, detail);
        }
        let wanted = Access::WriteSession(node.as_deref().unwrap_or(NO_NODE));
        match self.consul.may(&[wanted]).await {
            Ok(None) => Finding::works(SESSION, at, "ACLs are off"),
            Ok(Some(may)) if may == [true] => Finding::works(SESSION, at, ""),
            Ok(Some(_)) if node.is_some() => Finding::fails(SESSION, at, rule),
            Ok(Some(_)) => {
                let detail = format!("the token is not told the name of the node; {rule}");
                Finding::not_testable(SESSION, at, detail)
            }
            Err(err) if err.is_forbidden() => {
                Finding::fails(SESSION, at, format!("{}; {rule}", Chain(&err)))
            }
            Err(_) => Finding::not_testable(SESSION, at, format!("without creating one; {rule}")),
        }
    }

    /// The right that is needed.
    fn key_rule(&self) -> String {
        format!("`key_prefix \"{}/\" {{ policy = \"write\" }}`", self.keys.prefix)
    }
}

/// What the token is.
fn token(at: &str, token: api::Result<Option<api::Token>>) -> Finding {
    let nobody = at == "none";
    match token {
        Ok(None) => Finding::works(TOKEN, at, "ACLs are off: no token is needed"),
        Ok(Some(token)) => Finding::works(TOKEN, at, token.about()),
        Err(err) if nobody && err.is_forbidden() => {
            Finding::works(TOKEN, at, "none is given: it may do what anybody may")
        }
        Err(err) => Finding::fails(TOKEN, at, Chain(&err).to_string()),
    }
}
