//! What a plain script does: one object a file, one request an object. It knows all names already, writes without
//! `fsync` and checks nothing.

use std::path::Path;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use session_sidecar::emulator::BUCKET;

use crate::Result;
use crate::world::World;

/// A script's connection to storage.
pub struct Script {
    http: Client,
    url: Url,
    key: String,
}

impl Script {
    pub fn new(world: &World) -> Result<Self> {
        // As the sidecar does; a second installation in one process changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = Client::builder().http1_only().no_proxy().tls_certs_only([]).build()?;
        let url = format!("{}/storage/v1/object/", world.supabase.url()).parse()?;
        Ok(Self { http, url, key: world.supabase.service_role_key().to_owned() })
    }

    /// Uploads files of a directory as `{prefix}/{name}`, so many at once.
    pub async fn upload(&self, names: &[&str], from: &Path, prefix: &str, at_once: usize) -> Result<()> {
        each(names, at_once, async |name| {
            let url = self.object(&[BUCKET, prefix, name])?;
            let body = std::fs::read(from.join(name))?;
            let request = self.http.post(url).bearer_auth(&self.key).body(body);
            let answer = request.header(CONTENT_TYPE, "application/json").send().await?;
            answer.error_for_status()?.bytes().await?;
            Ok(())
        })
        .await
    }

    /// Downloads `{prefix}/{name}` into a directory, so many at once.
    pub async fn download(&self, names: &[&str], prefix: &str, into: &Path, at_once: usize) -> Result<()> {
        std::fs::create_dir_all(into)?;
        each(names, at_once, async |name| {
            let url = self.object(&["authenticated", BUCKET, prefix, name])?;
            let answer = self.http.get(url).bearer_auth(&self.key).send().await?;
            std::fs::write(into.join(name), answer.error_for_status()?.bytes().await?)?;
            Ok(())
        })
        .await
    }

    fn object(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.url.clone();
        url.path_segments_mut().map_err(|()| "an HTTP URL has a path")?.pop_if_empty().extend(path);
        Ok(url)
    }
}

async fn each(names: &[&str], at_once: usize, work: impl AsyncFn(&str) -> Result<()>) -> Result<()> {
    stream::iter(names).map(|name| work(name)).buffer_unordered(at_once).try_collect().await
}
