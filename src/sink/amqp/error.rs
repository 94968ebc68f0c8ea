//! Why a message was not published.

use super::link::LinkError;

/// A message that came back.
#[derive(Debug, thiserror::Error)]
#[error(
    "exchange `{exchange}` has no queue for the routing key `{key}` ({why}); bind one, or set \
     SINK_AMQP_UNROUTABLE"
)]
pub(super) struct NoRoute {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) why: String,
}

#[derive(Debug, thiserror::Error)]
#[error("RabbitMQ could not take the message: a queue is full, or has failed to write it")]
pub(super) struct Nacked;

#[derive(Debug, thiserror::Error)]
#[error("publish to exchange `{exchange}`")]
pub(super) struct PublishError {
    pub(super) exchange: String,
    #[source]
    pub(super) source: LinkError,
}
