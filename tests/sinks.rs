//! Every sink against its receiver: the contract that all of them keep, and what each has besides.
//! Those whose receivers are servers of others are in the suite `servers`.

pub mod aws;
pub mod contract;
#[cfg(feature = "eventbridge")]
pub mod eventbridge;
#[cfg(feature = "eventbridge")]
mod eventbridge_own;
mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "kafka")]
mod kafka_cut;
#[cfg(feature = "kafka")]
mod kafka_own;
pub mod kinesis;
mod kinesis_own;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "mongodb")]
mod mongodb_own;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "nsq")]
pub mod nsq;
#[cfg(feature = "nsq")]
mod nsq_own;
pub mod proxy;
pub mod source;
#[cfg(feature = "sqs")]
pub mod sqs;
#[cfg(feature = "sqs")]
mod sqs_own;
#[cfg(feature = "syslog")]
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

#[cfg(feature = "kafka")]
mod kafka_contract {
    // That a lost answer means a duplicate is not so where brokers know a message again; what is
    // so has tests of its own.
    crate::sink_contract!(crate::sinks::kafka::Kafka:
        records_of_one_key_stay_in_order
        only_what_failed_is_sent_again_and_holds_up_nobody_else
        a_record_that_is_refused_is_kept_and_the_others_go_on
        a_record_that_is_too_large_is_kept_and_the_others_go_on
        a_receiver_that_is_down_at_the_start_is_waited_for
        a_receiver_that_crashes_while_it_receives_loses_nothing
        a_slow_receiver_slows_reading_down_and_memory_stays_flat
        a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
        wrong_credentials_stop_everything_and_lose_nothing
    );
}

mod kinesis_contract {
    crate::sink_contract!(crate::sinks::kinesis::Kinesis);
}

#[cfg(feature = "mongodb")]
mod mongodb_contract {
    // Commands go one after the other over one connection, with no more than a call in memory: what
    // a receiver that is slow does to such a sink is tested with `http`.
    crate::sink_contract!(crate::sinks::mongodb::MongoDb: of the quick ones,
        only_what_failed_is_sent_again_and_holds_up_nobody_else
        a_record_that_is_refused_is_kept_and_the_others_go_on
    );
}

// A receiver that is slow is `kinesis` above, of which these have their client: with ten records for
// each request that would take them a minute.
#[cfg(feature = "sqs")]
mod sqs_contract {
    crate::sink_contract!(crate::sinks::sqs::Standard: of the quick ones,
        only_what_failed_is_sent_again_and_holds_up_nobody_else
        a_record_that_is_refused_is_kept_and_the_others_go_on
    );
}

#[cfg(feature = "sqs")]
mod sqs_fifo_contract {
    // An answer that is lost makes no duplicate here, and `sqs_own` has that of the others.
    crate::sink_contract!(crate::sinks::sqs::Fifo:
        records_of_one_key_stay_in_order
        only_what_failed_is_sent_again_and_holds_up_nobody_else
        a_record_that_is_refused_is_kept_and_the_others_go_on
        a_record_that_is_too_large_is_kept_and_the_others_go_on
        a_receiver_that_crashes_while_it_receives_loses_nothing
        a_stop_in_the_middle_of_a_call_is_in_time_and_the_next_run_goes_on
    );
}

#[cfg(feature = "eventbridge")]
mod eventbridge_contract {
    crate::sink_contract!(crate::sinks::eventbridge::EventBridge: of the quick ones,
        only_what_failed_is_sent_again_and_holds_up_nobody_else
        a_record_that_is_refused_is_kept_and_the_others_go_on
    );
}

#[cfg(feature = "nsq")]
mod nsq_contract {
    // As with `mongodb`, a call is all that is in memory.
    crate::sink_contract!(crate::sinks::nsq::Nsqd: of the quick ones,
        a_record_that_is_refused_is_kept_and_the_others_go_on
    );
}
