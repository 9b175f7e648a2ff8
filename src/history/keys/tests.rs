use super::*;
use crate::history::testing::pair;

#[test]
fn a_writer_needs_both_halves_and_an_identity_that_opens_what_it_writes() {
    let ((mine, my_secret), (theirs, their_secret)) = (pair(), pair());
    let code = |recipients: &[&str], identities: &str, accept: bool| {
        let keys = Keys::new(recipients.iter().copied(), identities, accept).unwrap();
        keys.check_for_writing().err().map(|error| error.code())
    };
    assert_eq!(code(&[], "", false), None, "encryption is off");
    assert_eq!(code(&[&mine], &my_secret, false), None);
    assert_eq!(code(&[&mine], "", false), Some(Code::NoIdentity));
    assert_eq!(code(&[], &my_secret, false), Some(Code::Usage));
    assert_eq!(code(&[], &my_secret, true), None, "the way out");
    assert_eq!(code(&[&mine], &their_secret, false), Some(Code::WrongIdentity));
    // A second recipient who keeps his identity elsewhere, and old identities of a rotation.
    assert_eq!(code(&[&theirs, &mine], &my_secret, false), None);
    assert_eq!(code(&[&mine], &format!("# old\n{their_secret}\n\n# new\n {my_secret} \n"), false), None);
}

#[test]
fn keys_of_other_kinds_and_halves_in_the_wrong_place_are_refused_without_being_repeated() {
    let (recipient, secret) = pair();
    let plugin = "age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt";
    for (bad, says) in [
        (secret.as_str(), "age-keygen -y"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW", "not taken"),
        (plugin, "not taken"),
        ("age1qqqq", "cut off"),
        ("hello", "age-keygen"),
    ] {
        let error = Keys::new([bad], "", false).unwrap_err();
        assert!(error.code() == Code::Usage && error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains(bad), "{error}");
    }
    for (bad, says) in [
        (recipient.as_str(), "public half"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "not taken"),
        ("AGE-PLUGIN-YUBIKEY-1QQQQ", "not taken"),
        ("age-encryption.org/v1\n-> scrypt x", "passphrase"),
        (&secret[..40], "AGE-SECRET-KEY-1"),
    ] {
        let error = Keys::new([], bad, false).unwrap_err();
        assert!(error.code() == Code::Usage && error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains(bad), "{error}");
    }
    let crowd: Vec<String> = (0..101).map(|_| pair().0).collect();
    assert!(
        Keys::new(crowd.iter().map(String::as_str), "", false).unwrap_err().to_string().contains("more than")
    );
    let keys = Keys::new([recipient.as_str(), recipient.as_str()], &secret, false).unwrap();
    assert_eq!(keys.fingerprints().len(), 1, "given twice");
    assert!(!format!("{keys:?}").contains(&secret[20..]));
}

#[test]
fn fingerprints_do_not_depend_on_the_order_of_recipients() {
    let ((one, _), (two, _)) = (pair(), pair());
    let of = |recipients: [&str; 2]| Keys::new(recipients, "", false).unwrap().fingerprints();
    assert_eq!(of([&one, &two]), of([&two, &one]));
    assert!(of([&one, &two])[0].len() == 16 && of([&one, &two])[0] != of([&one, &two])[1]);
}
