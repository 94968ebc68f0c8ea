//! Which variables can hold a secret, which cannot, and what else a sink needs.

use nomad_firehose::sink;

/// How a secret is in a variable.
#[derive(Clone, Copy, PartialEq)]
pub enum Holds {
    Value,
    /// `user:secret`
    Login,
    /// In the user info of an address.
    Address,
    /// In the query of an address.
    Query,
    /// In the file that it names.
    File,
    /// In a header line, or in a file of such lines.
    Header,
    HeaderFile,
    /// In the file `nomad_token` of the directory that it names.
    Directory,
    /// The file that it names is a private key.
    Key,
}

use Holds::{Address, Directory, File, Header, HeaderFile, Key, Login, Query, Value};

/// Every variable that can hold a secret.
pub const SECRETS: &[(&str, Holds)] = &[
    ("NOMAD_ADDR", Address),
    ("NOMAD_TOKEN", Value),
    ("NOMAD_HTTP_AUTH", Login),
    ("NOMAD_FIREHOSE_TOKEN_FILE", File),
    ("NOMAD_SECRETS_DIR", Directory),
    ("NOMAD_CLIENT_KEY", Key),
    ("CONSUL_HTTP_ADDR", Address),
    ("CONSUL_HTTP_TOKEN", Value),
    ("CONSUL_HTTP_TOKEN_FILE", File),
    ("CONSUL_HTTP_AUTH", Login),
    ("CONSUL_CLIENT_KEY", Key),
    ("SINK_AMQP_CONNECTION", Address),
    ("SINK_AMQP_CLIENT_KEY", Key),
    ("SINK_HTTP_ADDRESS", Query),
    ("SINK_HTTP_TOKEN", Value),
    ("SINK_HTTP_TOKEN_FILE", File),
    ("SINK_HTTP_HEADERS", Header),
    ("SINK_HTTP_HEADERS_FILE", HeaderFile),
    ("SINK_HTTP_HMAC_SECRET", Value),
    ("SINK_HTTP_HMAC_SECRET_FILE", File),
    ("SINK_HTTP_CLIENT_KEY", Key),
    ("SINK_KAFKA_PASSWORD", Value),
    ("SINK_KAFKA_PASSWORD_FILE", File),
    ("SINK_KAFKA_CLIENT_KEY", Key),
    ("SINK_MONGODB_CONNECTION", Address),
    ("SINK_MONGODB_PASSWORD_FILE", File),
    ("SINK_NATS_URL", Address),
    ("SINK_NATS_TOKEN", Value),
    ("SINK_NATS_TOKEN_FILE", File),
    ("SINK_NATS_CREDENTIALS_FILE", File),
    ("SINK_NATS_NKEY_FILE", File),
    ("SINK_NATS_CLIENT_KEY", Key),
    ("SINK_NSQ_AUTH_SECRET", Value),
    ("SINK_NSQ_AUTH_SECRET_FILE", File),
    ("SINK_NSQ_CLIENT_KEY", Key),
    ("SINK_REDIS_URL", Address),
    ("SINK_REDIS_PASSWORD_FILE", File),
    ("SINK_REDIS_CLIENT_KEY", Key),
    ("SINK_SYSLOG_CLIENT_KEY", Key),
    // Of everybody, and not only ours.
    ("HTTP_PROXY", Address),
    ("HTTPS_PROXY", Address),
    ("AWS_ACCESS_KEY_ID", Value),
    ("AWS_SECRET_ACCESS_KEY", Value),
    ("AWS_SESSION_TOKEN", Value),
];

/// Words by which a variable that can hold none is known.
pub const HARMLESS: &[&str] = &[
    "_ALLOC_ID",
    "_BATCH",
    "_BATCH_BYTES",
    "_BATCH_RECORDS",
    "_BROKERS",
    "_BUS_NAME",
    "_BYTES",
    "_CACERT",
    "_CAPATH",
    "_CA_CERT_PATH",
    "_CHECKPOINT",
    "_CLIENT_CERT",
    "_COLLECTION",
    "_CONFIRM",
    "_CONSUL_PREFIX",
    "_COUNT",
    "_DATABASE",
    "_DEAD_LETTER",
    "_EXCHANGE",
    "_FACILITY",
    "_FILTER",
    "_FORMAT",
    "_FRAMING",
    "_GRACE",
    "_GROUP",
    "_GZIP",
    "_HMAC_HEADER",
    "_HTTP_SSL",
    "_LEADER",
    "_LEVEL",
    "_LISTEN",
    "_LOCK_DELAY",
    "_MAXLEN",
    "_MODE",
    "_NAMESPACE",
    "_NSQ_ADDR",
    "_PARTITION",
    "_PARTITION_KEY",
    "_PROTO",
    "_QUEUE_NAME",
    "_REDIS_KEY",
    "_REGION",
    "_REJECTED",
    "_RESYNC",
    "_ROUTING_KEY",
    "_SASL_MECHANISM",
    "_SD_ID",
    "_SERVER_NAME",
    "_SESSION_TTL",
    "_SEVERITY",
    "_SOURCE",
    "_START",
    "_STATE_DIR",
    "_STREAM",
    "_STREAM_NAME",
    "_SUBJECT",
    "_SYSLOG_ADDR",
    "_TAG",
    "_TIMEOUT",
    "_TOPIC",
    "_TOPIC_NAME",
    "_TYPE",
    "_UNIX_ADDR",
    "_UNROUTABLE",
    "_USER",
    "_VARIABLE_PREFIX",
    "_WAIT",
];
pub const HARMLESS_SWITCHES: &[&str] =
    &["_IDEMPOTENT", "_KAFKA_TLS", "_NSQ_TLS", "_SKIP_VERIFY", "_SSL_VERIFY", "_WORKERS"];

/// Sinks that speak with somebody.
const SINKS: [&str; 11] = [
    "http",
    "amqp",
    "kinesis",
    "kafka",
    "mongodb",
    "nats",
    "nsq",
    "redis",
    "sqs",
    "eventbridge",
    "syslog",
];

/// What they need besides secrets; where there is no value, it is the place of the receiver.
pub const NEEDED: &[(&str, Option<&str>)] = &[
    ("SINK_AMQP_EXCHANGE", Some("nomad")),
    ("SINK_AMQP_ROUTING_KEY", Some("nomad")),
    ("SINK_EVENT_BUS_DETAIL_TYPE", Some("nomad")),
    ("SINK_EVENT_BUS_NAME", Some("nomad")),
    ("SINK_EVENT_BUS_SOURCE", Some("nomad")),
    ("SINK_KAFKA_BROKERS", None),
    ("SINK_KAFKA_TIMEOUT", Some("1s")),
    ("SINK_KAFKA_TOPIC", Some("nomad")),
    ("SINK_KAFKA_USER", Some("me")),
    ("SINK_KINESIS_STREAM_NAME", Some("nomad")),
    ("SINK_MONGODB_COLLECTION", Some("nomad")),
    ("SINK_MONGODB_DATABASE", Some("nomad")),
    ("SINK_NATS_SUBJECT", Some("nomad")),
    ("SINK_NSQ_ADDR", None),
    ("SINK_NSQ_TOPIC_NAME", Some("nomad")),
    ("SINK_REDIS_KEY", Some("nomad")),
    ("SINK_SQS_QUEUE_NAME", Some("nomad")),
    ("SINK_SYSLOG_ADDR", None),
    ("SINK_SYSLOG_PROTO", Some("tls")),
];

/// Those that this build has.
pub fn sinks() -> impl Iterator<Item = &'static str> {
    SINKS.into_iter().filter(|name| sink::documented().any(|it| it.0 == *name))
}

/// The sink that reads a variable, or one that does not.
pub fn sink_of(variable: &str) -> &'static str {
    sinks().find(|it| variable.contains(&format!("SINK_{}_", it.to_uppercase()))).unwrap_or("http")
}

/// The scheme of an address in a variable, given that of HTTP.
pub fn scheme(variable: &str, http: &'static str) -> &'static str {
    match (variable, http) {
        ("SINK_AMQP_CONNECTION", "https") => "amqps",
        ("SINK_AMQP_CONNECTION", _) => "amqp",
        ("SINK_MONGODB_CONNECTION", _) => "mongodb",
        ("SINK_NATS_URL", "https") => "tls",
        ("SINK_NATS_URL", _) => "nats",
        ("SINK_REDIS_URL", "https") => "rediss",
        ("SINK_REDIS_URL", _) => "redis",
        _ => http,
    }
}
