//! Which queue, and what it is.

use crate::env::{Env, Noted};

const QUEUE: &str = "SINK_SQS_QUEUE_NAME";
const GROUP: &str = "SINK_SQS_GROUP";
/// The characters that a name may have, its suffix included.
const MAX_NAME: usize = 80;
/// By this suffix the service itself knows a FIFO queue.
const FIFO: &str = ".fifo";

/// A queue, by one of what it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// A queue of our own account, whose URL the service tells.
    Name(String),
    /// Any queue.
    Url(String),
}

/// What a queue promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueType {
    /// Neither order nor that a message comes once.
    Standard,
    /// Order within a group, and that what is sent again within five minutes is dropped.
    Fifo,
}

/// What the messages of a group of a FIFO queue have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Group {
    /// The stream, as the Go tool has it.
    #[default]
    Stream,
    /// The object.
    Key,
}

impl Queue {
    pub(super) fn from_env(env: &Env) -> Result<Self, Noted> {
        let text: String = env.required(QUEUE, "the name or the URL of a queue")?;
        let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let Some(address) = address else {
            if is_name(&text) {
                return Ok(Self::Name(text));
            }
            let what = "is neither the name of a queue, of at most 80 letters, digits, `_` or `-` \
                        and `.fifo`, nor a URL";
            return Err(env.note(QUEUE, format!("`{text}` {what}")));
        };
        let plain = |it: char| it.is_ascii_graphic() && !matches!(it, '@' | '?' | '#');
        match address.rsplit_once('/') {
            Some((place, name))
                if !place.is_empty()
                    && !place.starts_with('/')
                    && address.chars().all(plain)
                    && is_name(name) =>
            {
                Ok(Self::Url(text))
            }
            _ => {
                let what = "is not the URL of a queue, such as \
                            https://sqs.eu-west-1.amazonaws.com/123456789012/nomad";
                Err(env.note(QUEUE, format!("`{text}` {what}")))
            }
        }
    }

    /// As it was set.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Name(text) | Self::Url(text) => text,
        }
    }

    pub(super) fn queue_type(&self) -> QueueType {
        if self.shown().ends_with(FIFO) { QueueType::Fifo } else { QueueType::Standard }
    }
}

fn is_name(text: &str) -> bool {
    let known = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    let name = text.strip_suffix(FIFO).unwrap_or(text);
    !name.is_empty() && text.len() <= MAX_NAME && name.chars().all(known)
}

impl Group {
    /// Nothing else is said of a queue that is not known.
    pub(super) fn from_env(env: &Env, queue: Option<&Queue>) -> Result<Self, Noted> {
        let group = match env.optional::<String>(GROUP)?.as_deref() {
            None => return Ok(Self::default()),
            Some("stream") => Self::Stream,
            Some("key") => Self::Key,
            Some(other) => {
                return Err(env.note(GROUP, format!("`{other}` is not one of: stream, key")));
            }
        };
        match queue.map(Queue::queue_type) {
            Some(QueueType::Standard) => {
                Err(env.note(GROUP, "is for FIFO queues, whose names end in `.fifo`"))
            }
            _ => Ok(group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(text: &str) -> Result<Queue, String> {
        let env = Env::from([(QUEUE, text)]);
        let queue = Queue::from_env(&env);
        env.check(queue).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn a_queue_is_a_name_or_a_url() {
        for name in ["nomad", "nomad_events-1.fifo", &"q".repeat(80)] {
            assert_eq!(queue(name), Ok(Queue::Name(name.to_owned())));
        }
        for url in [
            "https://sqs.eu-west-1.amazonaws.com/123456789012/nomad.fifo",
            "http://localhost:4566/000000000000/nomad",
            "https://queue.amazonaws.com/nomad",
        ] {
            assert_eq!(queue(url), Ok(Queue::Url(url.to_owned())));
        }
    }

    #[test]
    fn what_is_neither_is_refused_and_shown_without_secrets() {
        for text in ["no mad", "nomad.events", ".fifo", "a/b", &"q".repeat(81), "ftp://x/nomad"] {
            assert!(queue(text).unwrap_err().contains("neither the name of a queue"), "{text}");
        }
        for text in [
            "https://nomad",
            "https:///nomad",
            "https://sqs.eu-west-1.amazonaws.com/1/",
            "https://user:planted@sqs.example/1/nomad",
            "https://sqs.example/1/nomad?a=b",
            "https://sqs.example/1/no mad",
        ] {
            let problem = queue(text).unwrap_err();
            assert!(problem.contains("is not the URL of a queue"), "{problem}");
            assert!(!problem.contains("planted"), "{problem}");
        }
    }

    #[test]
    fn a_fifo_queue_is_known_by_its_name() {
        for (text, queue_type) in [
            ("nomad", QueueType::Standard),
            ("nomad.fifo", QueueType::Fifo),
            ("https://sqs.example/1/nomad.fifo", QueueType::Fifo),
            ("https://sqs.fifo/1/nomad", QueueType::Standard),
        ] {
            assert_eq!(queue(text).unwrap().queue_type(), queue_type, "{text}");
        }
    }
}
