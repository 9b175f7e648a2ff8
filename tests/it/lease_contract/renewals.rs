//! `renew_session_leases` and `release_session_leases`.

use serde_json::{Value, json};

use super::{Desk, Leases, is_fresh};

pub async fn a_renewal_goes_on_also_after_the_lease_ran_out(desk: &Desk<'_, impl Leases>) {
    let epoch = desk.granted("a").await;
    for seconds in [10, 3600] {
        desk.age(seconds).await;
        let mut lease = desk.renew("a", epoch, None).await;
        assert!(is_fresh(&lease), "{lease}");
        lease["expires_in"].take();
        let expected = json!({ "user": "u", "session": "s", "state": "held", "epoch": epoch, "expires_in": null,
            "holder": "a" });
        assert_eq!(lease, expected);
        assert_eq!(desk.take("b").await["reason"], "held");
    }
}

pub async fn a_wish_shows_in_the_renewal(desk: &Desk<'_, impl Leases>) {
    let epoch = desk.granted("a").await;
    desk.take("b").await;
    assert_eq!(desk.state("a", epoch).await, "held", "who does not ask leaves no wish");
    desk.ask("b").await;
    let lease = desk.renew("a", epoch, None).await;
    assert!(lease["state"] == "wanted" && is_fresh(&lease), "{lease}");
    desk.age(19).await;
    assert_eq!(desk.state("a", epoch).await, "wanted");
    desk.age(2).await;
    assert_eq!(desk.state("a", epoch).await, "held");
}

pub async fn who_lost_the_lease_is_told_and_changes_nothing(desk: &Desk<'_, impl Leases>) {
    let old = desk.granted("a").await;
    desk.age(31).await;
    let new = desk.granted("b").await;
    // By a higher epoch, and by another holder of the same.
    for (holder, epoch) in [("a", old), ("b", old), ("a", new)] {
        desk.age(5).await;
        let lease = desk.renew(holder, epoch, Some("9")).await;
        assert_eq!(
            (&lease["state"], &lease["epoch"], &lease["holder"]),
            (&json!("taken"), &json!(new), &json!("b"))
        );
        assert!(lease["expires_in"].as_f64().unwrap() < 26.0, "not prolonged: {lease}");
    }
    assert_eq!(desk.granted("b").await, new + 1);
    assert_eq!(desk.take("b").await["head"], Value::Null, "nor did its head count");
}

pub async fn a_late_renewal_does_not_undo_a_release(desk: &Desk<'_, impl Leases>) {
    let epoch = desk.granted("a").await;
    desk.release("a", epoch, None).await;
    let expected = json!({ "user": "u", "session": "s", "state": "free", "epoch": epoch, "expires_in": null,
        "holder": null });
    assert_eq!(desk.renew("a", epoch, Some("9")).await, expected);
    let lease = desk.take("b").await;
    assert_eq!((&lease["epoch"], &lease["head"]), (&json!(epoch + 1), &Value::Null));
}

pub async fn a_database_that_went_back_in_time_learns_from_the_holder(desk: &Desk<'_, impl Leases>) {
    // The row is not there at all.
    let lease = desk.renew("a", 5, Some("00000005-00000001-00000000")).await;
    assert_eq!(
        (&lease["state"], &lease["epoch"], &lease["holder"]),
        (&json!("held"), &json!(5), &json!("a"))
    );
    assert!(is_fresh(&lease), "{lease}");
    assert_eq!(desk.take("b").await["reason"], "held");
    // It is that of an earlier holder, whose lease has not run out and who was asked for it.
    desk.ask("c").await;
    let lease = desk.renew("b", 7, None).await;
    assert_eq!(
        (&lease["state"], &lease["epoch"], &lease["holder"]),
        (&json!("held"), &json!(7), &json!("b"))
    );
    assert_eq!(desk.state("a", 5).await, "taken");
    // It was released.
    desk.release("b", 7, None).await;
    assert_eq!(desk.state("c", 8).await, "held");
    let lease = desk.take("c").await;
    assert_eq!((&lease["epoch"], &lease["head"]), (&json!(9), &json!("00000005-00000001-00000000")));
}

pub async fn only_the_holder_of_the_epoch_releases(desk: &Desk<'_, impl Leases>) {
    assert!(!desk.release("a", 1, Some("9")).await, "there is no row");
    let epoch = desk.granted("a").await;
    assert_eq!(epoch, 1);
    for (holder, epoch) in [("b", epoch), ("a", epoch + 1)] {
        assert!(!desk.release(holder, epoch, Some("9")).await);
    }
    assert_eq!(desk.state("a", epoch).await, "held");
    // Also after it ran out.
    desk.age(60).await;
    assert!(desk.release("a", epoch, None).await);
    assert!(!desk.release("a", epoch, None).await, "once is enough");
    let lease = desk.take("b").await;
    assert_eq!((&lease["epoch"], &lease["head"]), (&json!(2), &Value::Null));
}

pub async fn a_wish_outlives_a_release(desk: &Desk<'_, impl Leases>) {
    let epoch = desk.granted("a").await;
    desk.ask("b").await;
    desk.release("a", epoch, None).await;
    assert_eq!(desk.take("c").await["reason"], "wished");
}

pub async fn the_newest_head_is_remembered_whoever_brings_it(desk: &Desk<'_, impl Leases>) {
    let mut epoch = desk.granted("a").await;
    // By bytes: `Z` sorts below `a`, unlike in a dictionary.
    for (head, newest) in
        [(Some("Z"), "Z"), (Some("a"), "a"), (Some("Z"), "a"), (None, "a"), (Some("b"), "b")]
    {
        desk.renew("a", epoch, head).await;
        let lease = desk.take("a").await;
        assert_eq!(lease["head"], newest);
        epoch = lease["epoch"].as_i64().unwrap();
    }
    for (head, newest) in [(Some("B"), "b"), (Some("c"), "c")] {
        assert!(desk.release("a", epoch, head).await);
        let lease = desk.take("a").await;
        assert_eq!(lease["head"], newest);
        epoch = lease["epoch"].as_i64().unwrap();
    }
}
