//! What a token is, and what it may do, as far as servers tell without doing it.

use std::time::Duration;

use super::{
    answer::{ApiError, Result},
    consul::types::{self as consul, TokenLink},
    kv::Consul,
    lists::Nomad,
    nomad::{self, types as nomad_types},
    variables::Variables,
};

/// For each of these requests; none of them waits for anything.
const LIMIT: Duration = Duration::from_secs(5);
/// What both servers answer where there are no tokens.
const OFF: &str = "ACL support disabled";

/// A token, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// What people call it.
    pub name: String,
    /// Whether it may do everything.
    pub manages: bool,
    /// Names of its policies.
    pub policies: Vec<String>,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// When it expires, where it does.
    pub expires: Option<String>,
}

/// An agent of Consul.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Its node, to which the sessions belong that it creates.
    pub node: String,
    /// Its version.
    pub version: String,
}

/// Something that a token may do or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// To write this key.
    WriteKey(&'a str),
    /// To create sessions of this node.
    WriteSession(&'a str),
}

/// Who has a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The name of the session.
    pub name: String,
    /// The node of the agent that created it.
    pub node: String,
}

/// Nothing where the server has no tokens at all.
fn unless_off<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(err) if err.says(OFF) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The token that this client of Nomad has.
async fn own(client: &nomad::Client, server: &super::answer::Server) -> Result<Option<Token>> {
    let request = client.get_token().send();
    let answer = server.ask("ask what token this is", LIMIT, request).await;
    let token = unless_off(answer)?.map(progenitor_client::ResponseValue::into_inner);
    Ok(token.map(|it: nomad_types::Token| Token {
        manages: it.type_ == "management",
        name: it.name.unwrap_or_default(),
        policies: it.policies.unwrap_or_default(),
        roles: it.roles.unwrap_or_default().into_iter().map(|it| it.name).collect(),
        expires: it.expiration_time,
    }))
}

impl Nomad {
    /// The token of every request; `None` where there is no need for one.
    pub async fn own_token(&self) -> Result<Option<Token>> {
        own(&self.client, &self.server).await
    }
}

impl Variables {
    /// The token of every request; `None` where there is no need for one.
    pub async fn own_token(&self) -> Result<Option<Token>> {
        own(&self.client, &self.server).await
    }
}

impl Consul {
    /// Where its token comes from.
    #[must_use]
    pub fn token(&self) -> String {
        let token = self.credentials.as_ref().map(|it| it.source("CONSUL_HTTP_TOKEN"));
        token.unwrap_or_else(|| "none".to_owned())
    }

    /// Whether keys and sessions are in a namespace or a partition of an enterprise Consul.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.scope.namespace.is_some() || self.scope.partition.is_some()
    }

    /// The agent that answers.
    pub async fn agent(&self) -> Result<Agent> {
        let request = self.client.read_agent().send();
        let answer = self.server.ask("ask for the version", LIMIT, request).await?;
        let consul::AgentConfig { node_name, version } = answer.into_inner().config;
        Ok(Agent { node: node_name, version })
    }

    /// The token of every request; `None` where there is no need for one.
    pub async fn own_token(&self) -> Result<Option<Token>> {
        let request = self.client.read_token().send();
        let answer = self.server.ask("ask what token this is", LIMIT, request).await;
        let Some(answer) = unless_off(answer)? else { return Ok(None) };
        let names = |links: Option<Vec<TokenLink>>| {
            links.unwrap_or_default().into_iter().map(|it| it.name).collect::<Vec<_>>()
        };
        let it = answer.into_inner();
        let policies = names(it.policies);
        Ok(Some(Token {
            manages: policies.iter().any(|it| it == "global-management"),
            name: it.description.unwrap_or_default(),
            policies,
            roles: names(it.roles),
            expires: it.expiration_time,
        }))
    }

    /// Whether the token may do each of these, which are not done; `None` where everybody may.
    pub async fn may(&self, wanted: &[Access<'_>]) -> Result<Option<Vec<bool>>> {
        let body = wanted.iter().map(|it| {
            let (resource, segment) = match it {
                Access::WriteKey(key) => ("key", key),
                Access::WriteSession(node) => ("session", node),
            };
            let (resource, segment) = (resource.to_owned(), (*segment).to_owned());
            consul::Access { resource, segment, access: "write".to_owned(), allow: None }
        });
        let request = self.client.authorize().body(body.collect::<Vec<_>>()).send();
        let doing = "ask what the token may do";
        let answer = self.server.ask(doing, LIMIT, request).await;
        let Some(answer) = unless_off(answer)? else { return Ok(None) };
        let allowed: Vec<bool> =
            answer.into_inner().into_iter().map(|it| it.allow == Some(true)).collect();
        if allowed.len() != wanted.len() {
            let what = format!("{} answers to {} questions", allowed.len(), wanted.len());
            return Err(self.server.unexpected(doing, what));
        }
        Ok(Some(allowed))
    }

    /// Who has a session; `None` where it is gone, or not shown to this token.
    pub async fn holder(&self, session: &str) -> Result<Option<Holder>> {
        let request = self.client.read_session().session(session).send();
        let answer = self.server.ask("read the session", LIMIT, request).await?;
        let found = answer.into_inner().into_iter().next();
        Ok(found.map(|it| Holder {
            name: it.name.unwrap_or_default(),
            node: it.node.unwrap_or_default(),
        }))
    }
}

impl Token {
    /// What it is, in words.
    #[must_use]
    pub fn about(&self) -> String {
        let mut about = match self.manages {
            true => "a management token".to_owned(),
            false => "a client token".to_owned(),
        };
        let shown = |names: &[String]| crate::error::brief(&names.join(", "));
        for (what, names) in [("policies", &self.policies), ("roles", &self.roles)] {
            if !names.is_empty() && !self.manages {
                about = format!("{about}, {what}: {}", shown(names));
            }
        }
        match &self.expires {
            Some(at) => format!("{about}; it expires at {}", crate::error::brief(at)),
            None => about,
        }
    }
}

impl ApiError {
    /// Whether the server did not answer at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
