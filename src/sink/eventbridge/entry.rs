//! What a record becomes.

use aws_sdk_eventbridge::{
    primitives::{DateTime, DateTimeFormat},
    types::PutEventsRequestEntry,
};

use crate::{
    error::BoxError,
    record::{Format, Record, shortened},
};

/// What the service counts for a time, however it is written.
const TIME_BYTES: usize = 14;
/// Characters of a resource.
const MAX_RESOURCE: usize = 2048;
/// What an id counts for, as a rule: names of jobs can be longer.
const ID_BYTES: usize = 256;

/// What all events have in common.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) detail_type: String,
    pub(super) source: String,
}

/// An event that is not sent yet.
#[derive(Debug)]
pub(super) struct Entry {
    detail: String,
    id: String,
    time: Option<DateTime>,
}

impl Labels {
    fn size(&self) -> usize {
        self.detail_type.len() + self.source.len()
    }

    /// What a record counts for beside its detail.
    pub(super) fn beside(&self) -> usize {
        self.size() + TIME_BYTES + ID_BYTES
    }
}

impl Entry {
    pub(super) fn of(record: &Record, format: Format) -> Result<Self, BoxError> {
        let detail = String::from_utf8(record.encoded(format).into())?;
        let id = shortened(&record.meta.id, MAX_RESOURCE).into_owned();
        let time = record.meta.time.as_deref();
        let time = time.and_then(|it| DateTime::from_str(it, DateTimeFormat::DateTime).ok());
        Ok(Self { detail, id, time })
    }

    /// Its size, as the service counts it.
    pub(super) fn size(&self, labels: &Labels) -> usize {
        let time = self.time.map_or(0, |_| TIME_BYTES);
        time + labels.size() + self.detail.len() + self.id.len()
    }

    pub(super) fn request(self, labels: &Labels, bus: &str) -> PutEventsRequestEntry {
        let entry = PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(&labels.source)
            .detail_type(&labels.detail_type)
            .detail(self.detail)
            .resources(self.id);
        entry.set_time(self.time).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn an_event_has_the_id_and_the_time_of_its_record() {
        let labels = Labels { detail_type: "Nomad \u{fc}".into(), source: "example".into() };
        let mut record = record("k", 3);
        record.meta.time = Some("2026-01-01T00:00:01.5Z".into());
        let entry = Entry::of(&record, Format::Payload).unwrap();
        assert_eq!(entry.size(&labels), 14 + 8 + 7 + 3 + record.meta.id.len());
        let request = entry.request(&labels, "bus");
        assert_eq!(request.resources(), [record.meta.id]);
        assert_eq!(request.detail(), Some("111"));
        assert_eq!(request.time().unwrap().as_secs_f64(), 1_767_225_601.5);
        assert_eq!(request.event_bus_name(), Some("bus"));
    }

    #[test]
    fn a_time_that_nomad_does_not_say_is_not_made_up() {
        let entry = Entry::of(&record("k", 3), Format::Payload).unwrap();
        assert_eq!(entry.time, None);
    }
}
