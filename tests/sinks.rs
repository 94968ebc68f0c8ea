//! Every sink against its receiver: the contract that all of them keep, and what each has besides.
//! Those whose receivers are servers of others are in the suite `servers`.

pub mod contract;
mod http;
pub mod kinesis;
mod kinesis_own;
pub mod nsq;
mod nsq_own;
pub mod proxy;
pub mod source;
mod syslog;
pub mod web;
pub mod world;

mod http_contract {
    crate::sink_contract!(crate::sinks::web::Posts<false>);
}

mod http_batch_contract {
    crate::sink_contract!(crate::sinks::web::Posts<true>: of the common ones,
        a_record_that_is_refused_is_kept_and_the_others_go_on);
}

mod kinesis_contract {
    crate::sink_contract!(crate::sinks::kinesis::Kinesis);
}

mod nsq_contract {
    crate::sink_contract!(crate::sinks::nsq::Nsqd: of the common ones,
        a_record_that_is_refused_is_kept_and_the_others_go_on);
}
