//! What the service's answers mean.

use aws_sdk_sqs::{
    operation::send_message_batch::SendMessageBatchOutput, types::BatchResultErrorEntry,
};

use crate::sink::{
    Again, FailureKind,
    aws::{Answer, Hint, Meaning},
};

const SELDOM: Meaning = Meaning::Unavailable(Again::Seldom);

/// The service knows the queue, and did not say where it is.
#[derive(Debug, thiserror::Error)]
#[error("look for {receiver}: the answer has no URL; set SINK_SQS_QUEUE_NAME to that of the queue")]
pub(super) struct NoUrl {
    pub(super) receiver: String,
}

/// What is answered about each of so many messages, whose ids are their numbers.
pub(super) fn about(sent: usize, answer: &SendMessageBatchOutput) -> Vec<Answer> {
    let missing = "it is not in the answer".to_owned();
    let mut answers = vec![Answer::Failed(FailureKind::Transient, missing); sent];
    let mut set = |id: &str, answer| {
        if let Some(place) = id.parse().ok().and_then(|it: usize| answers.get_mut(it)) {
            *place = answer;
        }
    };
    for it in answer.successful().iter().filter(|it| !it.message_id().is_empty()) {
        set(it.id(), Answer::Stored);
    }
    for it in answer.failed() {
        set(it.id(), Answer::Failed(kind(it), it.code().to_owned()));
    }
    answers
}

/// Whether a message is at fault, and not the queue or what we may do with it.
fn kind(failed: &BatchResultErrorEntry) -> FailureKind {
    let code = failed.code();
    let of_the_queue = ["AccessDenied", "Thrott", "KMS", "Kms", "OverLimit", "Queue", "Internal"];
    if failed.sender_fault() && !of_the_queue.iter().any(|it| plain(code).contains(it)) {
        FailureKind::Rejected
    } else {
        FailureKind::Transient
    }
}

/// Some codes come with where they are from, and some without.
fn plain(code: &str) -> &str {
    code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)
}

/// What the codes of this service mean.
pub(super) fn meaning(code: &str) -> Option<Hint> {
    match plain(code) {
        "BatchRequestTooLong"
        | "InvalidMessageContents"
        | "InvalidParameterValue"
        | "InvalidAttributeValue" => {
            Some((Meaning::Refused, "; the records are not as the queue wants them"))
        }
        "NonExistentQueue" | "QueueDoesNotExist" | "InvalidAddress" => {
            Some((SELDOM, "; create it, or check SINK_SQS_QUEUE_NAME and the region"))
        }
        "AccessDenied" | "AccessDeniedException" => {
            Some((SELDOM, "; the credentials need sqs:SendMessage"))
        }
        "InvalidSecurity" | "UnsupportedOperation" => {
            Some((SELDOM, "; check AWS_ENDPOINT_URL and what the queue permits"))
        }
        _ => None,
    }
}

/// The same, where its URL is asked for.
pub(super) fn meaning_of_looking(code: &str) -> Option<Hint> {
    match code {
        "AccessDenied" | "AccessDeniedException" => Some((
            SELDOM,
            "; the credentials need sqs:GetQueueUrl, or set SINK_SQS_QUEUE_NAME to its URL",
        )),
        code => meaning(code),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::SendMessageBatchResultEntry;

    use super::*;

    fn stored(id: &str, message: &str) -> SendMessageBatchResultEntry {
        let entry = SendMessageBatchResultEntry::builder().id(id).message_id(message);
        entry.md5_of_message_body("").build().unwrap()
    }

    fn failed(id: &str, code: &str, fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder().id(id).code(code).sender_fault(fault).build().unwrap()
    }

    #[test]
    fn each_message_has_the_answer_with_its_id() {
        let answer = SendMessageBatchOutput::builder()
            .set_successful(Some(vec![stored("4", "m"), stored("0", "m"), stored("2", "")]))
            .set_failed(Some(vec![
                failed("3", "InvalidMessageContents", true),
                failed("1", "InternalError", false),
                failed("9", "InternalError", false),
            ]))
            .build()
            .unwrap();
        let answers = about(6, &answer);
        let kinds: Vec<_> = answers
            .iter()
            .map(|it| match it {
                Answer::Stored => None,
                Answer::Failed(kind, _) => Some(*kind),
            })
            .collect();
        let (transient, rejected) = (Some(FailureKind::Transient), Some(FailureKind::Rejected));
        assert_eq!(kinds, [None, transient, transient, rejected, None, transient]);
    }

    #[test]
    fn a_message_is_given_up_only_where_it_is_at_fault() {
        for (code, fault, rejected) in [
            ("InvalidParameterValue", true, true),
            ("InvalidMessageContents", true, true),
            ("SomethingNew", true, true),
            ("SomethingNew", false, false),
            ("RequestThrottled", true, false),
            ("KMS.DisabledException", true, false),
            ("AWS.SimpleQueueService.NonExistentQueue", true, false),
            ("AccessDenied", true, false),
            ("InternalError", true, false),
        ] {
            let wanted = if rejected { FailureKind::Rejected } else { FailureKind::Transient };
            assert_eq!(kind(&failed("0", code, fault)), wanted, "{code}");
        }
    }

    #[test]
    fn codes_are_known_with_their_prefix_and_without() {
        for code in ["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"] {
            assert_eq!(meaning(code).unwrap().0, SELDOM);
        }
        for code in ["BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"] {
            assert_eq!(meaning(code).unwrap().0, Meaning::Refused);
        }
        assert!(meaning_of_looking("AccessDenied").unwrap().1.contains("sqs:GetQueueUrl"));
        assert!(meaning("AccessDenied").unwrap().1.contains("sqs:SendMessage"));
        assert_eq!(meaning("OverLimit"), None);
    }
}
