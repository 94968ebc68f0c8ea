//! Not built yet.

use async_trait::async_trait;

use super::{Connect, DeliverError, Sink, Summary};
use crate::{
    env::{Env, Noted},
    record::{Format, Record},
};

pub(super) struct Nsq;

impl Connect for Nsq {
    const SUMMARY: Summary = Summary { delivered: "", duplicate: "", set_by: &[] };

    fn from_env(env: &Env, _: Format) -> Result<Self, Noted> {
        Err(env.note("SINK_TYPE", "is not built yet"))
    }
}

#[async_trait]
impl Sink for Nsq {
    async fn deliver(&self, _: &[Record]) -> Result<(), DeliverError> {
        Ok(())
    }
}
