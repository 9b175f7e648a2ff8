//! Killed right after the phone scanned: the phone never lists a device that we lost.

use crate::support::service::Service;
use crate::support::world::{World, eventually};
use crate::whatsapp::Server;

/// `SIDECAR_TEST_KILLS=30` for the whole proof.
fn kills() -> u32 {
    std::env::var("SIDECAR_TEST_KILLS").map_or(6, |kills| kills.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_right_after_the_scan_has_the_link_wherever_the_phone_lists_it() {
    let (world, whatsapp) = (World::new().await, Server::start().await.unwrap());
    for n in 0..kills() {
        let session = format!("u{n}/s1");
        let (root, phone) =
            (world.root(&format!("root{n}")), whatsapp.phone(&format!("1555000{n:04}"), "Ada"));
        let service = Service::start(&world, &whatsapp, &root, &["--select", "none"]).await;
        service.connect(&session).await;
        phone.scan_qr(&service.qr(&session).await).await.unwrap();
        // The phone lists it; the session is said to be linked once it is stored.
        if n % 2 == 0 {
            eventually("it is told to be linked", async || {
                let (_, status) = service.get(&format!("/api/whatsapp/status/{session}")).await;
                !status["me"].is_null()
            })
            .await;
            service.kill();
            // Also the disk is lost: what was told to people is in the bucket.
            std::fs::remove_dir_all(&root).unwrap();
        } else {
            service.kill();
        }
        let service = Service::start(&world, &whatsapp, &root, &["--select", &session]).await;
        service.connect(&session).await;
        service.is_in(&session, "WORKING").await;
        assert_eq!(phone.devices().len(), 1);
        service.kill();
    }
}
