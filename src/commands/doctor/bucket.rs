//! The bucket's settings, by the rules that starts and `init` go by.

use super::check::Check;
use crate::commands::init;
use crate::store::{Bucket, StoreError};
use crate::sync::journal::Terms;

/// Whether commits can be stored there, and nobody else reads them.
pub(super) fn check(name: &str, answer: &Result<Bucket, StoreError>) -> Check {
    const NAME: &str = "bucket";
    const ADVICE: &str = "run `session-sidecar init`: it creates the bucket and mends its settings";
    let bucket = match Terms::of(name, answer.clone()) {
        Ok(terms) => terms.bucket,
        Err(error) => return Check::error(NAME, &error, ADVICE),
    };
    let (_, changes) = init::mend(&bucket);
    if !changes.is_empty() {
        return Check::warn(NAME, format!("`{name}` could be better: {}", changes.join("; ")), ADVICE);
    }
    let limit = bucket.size_limit.map_or("any size".to_owned(), |limit| format!("up to {limit} bytes"));
    Check::ok(NAME, format!("`{name}` is private and takes objects of {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::store::Kind;

    #[test]
    fn a_bucket_is_judged_by_the_rules_of_a_start() {
        let code = |answer| check("b", &answer).code;
        assert_eq!(code(Err(StoreError::new(Kind::NoBucket, "bucket", "no"))), Some(Code::BucketMissing));
        assert_eq!(code(Ok(Bucket { public: true, ..Bucket::default() })), Some(Code::BucketPublic));
        let images = Bucket { types: Some(vec!["image/*".to_owned()]), ..Bucket::default() };
        assert_eq!(code(Ok(images)), Some(Code::BucketRefuses));
    }

    #[test]
    fn what_init_would_change_is_told_and_nothing_else() {
        let small = check("b", &Ok(Bucket { size_limit: Some(1), ..Bucket::default() }));
        assert!(small.code.is_none() && small.advice.unwrap().contains("init"), "{}", small.found);
        assert_eq!(check("b", &Ok(Bucket::default())).advice, None);
    }
}
