//! What an event bus is called, and what its events are.
//!
//! The service drops some events whose names it does not take, and says that it has them; so what
//! is known of names is checked here.

use crate::env::{Env, Noted};

/// Characters of each.
const MAX_BUS: usize = 256;
const MAX_DETAIL_TYPE: usize = 128;
const MAX_SOURCE: usize = 256;
/// Sources that begin like this are the services of Amazon.
const RESERVED: &str = "aws.";

/// A name or an ARN.
pub(super) fn bus(env: &Env) -> Result<String, Noted> {
    let name = "SINK_EVENT_BUS_NAME";
    let bus: String = env.required(name, "the name or the ARN of an event bus")?;
    let is_arn = match bus.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", partition, "events", region, account, resource] => {
            let digits = account.len() == 12 && account.bytes().all(|it| it.is_ascii_digit());
            let name = resource.strip_prefix("event-bus/").is_some_and(is_name);
            !partition.is_empty() && !region.is_empty() && digits && name
        }
        _ => false,
    };
    if is_arn || is_name(&bus) {
        return Ok(bus);
    }
    let what = "is neither the name of an event bus, of at most 256 letters, digits, `_`, `.`, \
                `/` or `-`, nor an ARN";
    Err(env.note(name, format!("`{bus}` {what}")))
}

fn is_name(text: &str) -> bool {
    let known = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '/' | '-');
    (1..=MAX_BUS).contains(&text.len()) && text.chars().all(known)
}

/// What the events are, as rules match them.
pub(super) fn detail_type(env: &Env) -> Result<String, Noted> {
    let name = "SINK_EVENT_BUS_DETAIL_TYPE";
    let text: String = env.required(name, "what rules match as `detail-type`")?;
    if text.chars().count() > MAX_DETAIL_TYPE {
        return Err(env.note(name, format!("is longer than {MAX_DETAIL_TYPE} characters")));
    }
    Ok(text)
}

/// Where the events are from, as rules match them.
pub(super) fn source(env: &Env) -> Result<String, Noted> {
    let name = "SINK_EVENT_BUS_SOURCE";
    let text: String = env.required(name, "what rules match as `source`")?;
    if text.chars().count() > MAX_SOURCE {
        return Err(env.note(name, format!("is longer than {MAX_SOURCE} characters")));
    }
    if text.to_ascii_lowercase().starts_with(RESERVED) {
        let what = format!("`{text}` begins with `{RESERVED}`, which is for services of Amazon");
        return Err(env.note(name, what));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T>(
        read: fn(&Env) -> Result<T, Noted>,
        name: &'static str,
        text: &str,
    ) -> Option<String> {
        let env = Env::from([(name, text)]);
        let read = read(&env);
        env.check(read).err().map(|problems| problems[0].to_string())
    }

    #[test]
    fn a_bus_is_a_name_or_an_arn() {
        let problem = |text| problem(bus, "SINK_EVENT_BUS_NAME", text);
        for text in [
            "default",
            "nomad_events.v1-a",
            "aws.partner/example.com/nomad",
            "arn:aws:events:eu-west-1:123456789012:event-bus/nomad",
        ] {
            assert_eq!(problem(text), None);
        }
        for text in [
            "nomad events",
            &"b".repeat(257),
            "arn:aws:events:eu-west-1:123456789012:event-bus/",
            "arn:aws:events:eu-west-1:123456789012:rule/nomad",
            "arn:aws:sqs:eu-west-1:123456789012:event-bus/nomad",
            "arn:aws:events:eu-west-1:1:event-bus/nomad",
        ] {
            assert!(problem(text).unwrap().contains("neither the name"), "{text}");
        }
    }

    #[test]
    fn names_that_the_service_drops_or_refuses_are_mistakes() {
        let of_type = |text: &str| problem(detail_type, "SINK_EVENT_BUS_DETAIL_TYPE", text);
        assert_eq!(of_type(&"\u{fc}".repeat(128)), None);
        assert!(of_type(&"d".repeat(129)).unwrap().contains("longer than 128"));
        assert!(of_type("").unwrap().contains("is not set"));
        let of_source = |text: &str| problem(source, "SINK_EVENT_BUS_SOURCE", text);
        assert_eq!(of_source("com.example.nomad"), None);
        assert!(of_source(&"s".repeat(257)).unwrap().contains("longer than 256"));
        assert!(of_source("aws.nomad").unwrap().contains("services of Amazon"));
        assert!(of_source("").unwrap().contains("is not set"));
    }
}
