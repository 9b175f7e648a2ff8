//! The storage calls: the object store's trait on Supabase.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use reqwest::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::OnceCell;

use super::client::{Answer, Chunks, Client, Reply, Request};
use super::wire;
use crate::session::Scope;
use crate::store::{
    Bucket, Info, Kind, Listing, Op, Order, Page, Put, Sink, Store, StoreError, is_valid_key, order_of_names,
};

/// One bucket of a project.
///
/// Only the `/authenticated/` routes read: the others call a bad key "not found". Objects are uploaded as
/// `no-store` and read with a query of their own (`?v=`), which the server ignores: a cache in front of
/// hosted projects serves overwritten objects for a minute and more. Neither is a promise: what must be fresh
/// gets a new name.
#[derive(Debug)]
pub struct Supabase {
    client: Arc<Client>,
    bucket: String,
    base: OnceCell<String>,
}

impl Supabase {
    pub(super) fn of(client: Client, bucket: String) -> Self {
        Self { client: Arc::new(client), bucket, base: OnceCell::new() }
    }

    /// The connection to the project, for tables and functions too.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.bucket
    }

    /// Creates the bucket.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`]; [`Kind::TooLarge`] when the size limit is over the project's.
    pub async fn create_bucket(&self, bucket: &Bucket) -> Result<(), StoreError> {
        let mut body = wire::limits(bucket);
        body["id"] = json!(self.bucket);
        body["name"] = json!(self.bucket);
        let request = self.request("create bucket", Method::POST, "bucket").await?.json(&body);
        self.answer::<serde_json::Value>(&request).await.map(drop)
    }

    /// Changes what the bucket allows, all of it.
    pub async fn update_bucket(&self, bucket: &Bucket) -> Result<(), StoreError> {
        let path = format!("bucket/{}", escape(&self.bucket));
        let request = self.request("update bucket", Method::PUT, &path).await?.json(&wire::limits(bucket));
        self.answer::<serde_json::Value>(&request).await.map(drop)
    }

    /// The URL of the bucket's settings.
    pub async fn bucket_url(&self) -> Result<String, StoreError> {
        Ok(format!("{}/bucket/{}", self.base().await?, escape(&self.bucket)))
    }

    /// Where storage answers: below `/storage/v1` behind the usual gateway; a server without one has no such
    /// route. Found out once.
    async fn base(&self) -> Result<&str, StoreError> {
        let find = async || Ok(self.find_base().await?.0);
        self.base.get_or_try_init(find).await.map(String::as_str)
    }

    /// The base, and what was asked to find it: the bucket, if the base is the one that was asked.
    async fn find_base(&self) -> Result<(String, Option<Reply>), StoreError> {
        let plain = self.client.endpoint().base();
        let gateway = format!("{plain}/storage/v1");
        let probe = format!("{gateway}/bucket/{}", escape(&self.bucket));
        match self.client.send(&Request::new(Op::Bucket.as_str(), Method::GET, probe)).await? {
            Reply::Refusal(answer) if wire::is_unknown_route(&answer.body) => Ok((plain.to_owned(), None)),
            Reply::Refusal(answer) if !wire::is_storage(&answer.body) => {
                Err(self.client.refusal(Op::Bucket.as_str(), &answer))
            }
            reply => Ok((gateway, Some(reply))),
        }
    }

    async fn request(&self, op: &'static str, method: Method, path: &str) -> Result<Request, StoreError> {
        Ok(Request::new(op, method, format!("{}/{path}", self.base().await?)))
    }

    /// A request about one object.
    async fn object(&self, op: Op, method: Method, route: &str, key: &str) -> Result<Request, StoreError> {
        if !is_valid_key(key) {
            return Err(StoreError::new(Kind::BadKey, op.as_str(), "Supabase takes no such key"));
        }
        self.guard(op, |scope| scope.reaches(key))?;
        let path = format!("{route}/{}/{}", escape(&self.bucket), escape(key));
        self.request(op.as_str(), method, &path).await
    }

    /// Refuses what the token is not for.
    fn guard(&self, op: Op, fits: impl FnOnce(&Scope) -> bool) -> Result<(), StoreError> {
        match self.client.credential().not_for(fits) {
            None => Ok(()),
            Some(scope) => {
                let text = format!(
                    "the token is for {scope} alone: make one for what is meant with `session-sidecar token`"
                );
                Err(StoreError::new(Kind::Denied, op.as_str(), text))
            }
        }
    }

    async fn open(&self, request: &Request) -> Result<Response, StoreError> {
        self.success(request.op, self.client.send(request).await?)
    }

    fn success(&self, op: &'static str, reply: Reply) -> Result<Response, StoreError> {
        match reply {
            Reply::Success(response) => Ok(response),
            Reply::Refusal(answer) => Err(self.client.refusal(op, &answer)),
        }
    }

    async fn read(&self, request: &Request) -> Result<Answer, StoreError> {
        let response = self.open(request).await?;
        self.client.read(request.op, response).await
    }

    /// An answer of success is JSON, of the shape we know.
    async fn answer<T: DeserializeOwned>(&self, request: &Request) -> Result<T, StoreError> {
        let answer = self.read(request).await?;
        self.parse(request.op, &answer)
    }

    fn parse<T: DeserializeOwned>(&self, op: &'static str, answer: &Answer) -> Result<T, StoreError> {
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.client.foreign(op, &format!("{op}, line {}", error.line())))
    }

    async fn upload(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        let mut request = self.object(Op::Put, Method::POST, "object", key).await?;
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| StoreError::new(Kind::TypeRefused, Op::Put.as_str(), "no such content type"))
        };
        request.headers.insert(CONTENT_TYPE, header(&how.content_type)?);
        request.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if how.overwrite {
            request.headers.insert(HeaderName::from_static("x-upsert"), HeaderValue::from_static("true"));
        }
        if let Some(metadata) = &how.metadata {
            let encoded = header(&STANDARD.encode(metadata.to_string()))?;
            request.headers.insert(HeaderName::from_static("x-metadata"), encoded);
        }
        request.body = Some(body);
        let _: wire::Uploaded = self.answer(&request).await?;
        Ok(())
    }

    async fn download(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        let op = Op::Get;
        let mut request = self.object(op, Method::GET, "object/authenticated", key).await?;
        bypass_caches(&mut request.url);
        let response = self.open(&request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.client.foreign(op.as_str(), &format!("HTTP {}", response.status())));
        }
        if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(self.client.foreign(op.as_str(), "something in between compressed the object"));
        }
        let announced = response.content_length();
        let mut chunks = Chunks::new(&self.client, op.as_str(), response);
        sink.restart().map_err(|error| StoreError::sink(&error))?;
        let mut received = 0;
        while let Some(chunk) = chunks.next().await? {
            received += chunk.len() as u64;
            sink.write(&chunk).map_err(|error| StoreError::sink(&error))?;
        }
        match announced {
            Some(announced) if announced != received => {
                let text = format!("{received} of {announced} bytes arrived");
                Err(StoreError::new(Kind::Transient, op.as_str(), text))
            }
            _ => Ok(()),
        }
    }

    async fn remove_some(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        let path = format!("object/{}", escape(&self.bucket));
        let request = self.request(Op::Remove.as_str(), Method::DELETE, &path).await?;
        let rows: Vec<wire::Removed> = self.answer(&request.json(&json!({ "prefixes": keys }))).await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }
}

#[async_trait]
impl Store for Supabase {
    async fn bucket(&self) -> Result<Bucket, StoreError> {
        let op = Op::Bucket.as_str();
        let mut probed = None;
        self.base
            .get_or_try_init(|| async {
                let (base, reply) = self.find_base().await?;
                probed = reply;
                Ok(base)
            })
            .await?;
        // A start asks for the bucket before all else: the probe is the answer.
        let response = if let Some(reply) = probed {
            self.success(op, reply)?
        } else {
            let path = format!("bucket/{}", escape(&self.bucket));
            self.open(&self.request(op, Method::GET, &path).await?).await?
        };
        let bucket: wire::Bucket = self.parse(op, &self.client.read(op, response).await?)?;
        Ok(bucket.into())
    }

    async fn put(&self, key: &str, body: Bytes, how: &Put) -> Result<(), StoreError> {
        self.upload(key, body, how).await.map_err(|error| error.at(key))
    }

    async fn get(&self, key: &str, sink: &mut dyn Sink) -> Result<(), StoreError> {
        self.download(key, sink).await.map_err(|error| error.at(key))
    }

    async fn info(&self, key: &str) -> Result<Info, StoreError> {
        let info = async {
            let mut request = self.object(Op::Info, Method::GET, "object/info/authenticated", key).await?;
            bypass_caches(&mut request.url);
            self.answer::<wire::Info>(&request).await
        };
        info.await.map(Info::from).map_err(|error| error.at(key))
    }

    async fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        self.guard(Op::List, |scope| scope.looks_into(&page.prefix))?;
        let op = Op::List.as_str();
        let path = format!("object/list-v2/{}", escape(&self.bucket));
        let request = self.request(op, Method::POST, &path).await?.json(&wire::list(page));
        let answer = self.read(&request).await?;
        let list: wire::List = self.parse(op, &answer)?;
        let mut listing = Listing::from(list);
        if listing.next.as_deref() == Some("") {
            return Err(self.client.foreign(op, "a list says that it goes on, but not where"));
        }
        listing.order = order(&listing);
        listing.date = answer.date();
        Ok(listing)
    }

    async fn remove(&self, keys: &[String]) -> Result<Vec<String>, StoreError> {
        self.guard(Op::Remove, |scope| keys.iter().all(|key| scope.reaches(key)))?;
        let mut removed = Vec::new();
        for chunk in wire::chunks(keys) {
            removed.append(&mut self.remove_some(chunk).await?);
        }
        Ok(removed)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let op = Op::Rename.as_str();
        if let Some(bad) = [from, to].into_iter().find(|key| !is_valid_key(key)) {
            return Err(StoreError::new(Kind::BadKey, op, "Supabase takes no such key").at(bad));
        }
        self.guard(Op::Rename, |scope| scope.reaches(from) && scope.reaches(to))?;
        let body = json!({ "bucketId": self.bucket, "sourceKey": from, "destinationKey": to });
        let request = self.request(op, Method::POST, "object/move").await?.json(&body);
        self.answer::<wire::Moved>(&request).await.map(drop).map_err(|error| match error.kind {
            Kind::NotFound => error.at(from),
            _ => error.at(to),
        })
    }
}

/// The order that an answer proves: by its names, else by its cursor, which carries the order that it goes on
/// in.
fn order(listing: &Listing) -> Option<Order> {
    let names = listing.objects.iter().map(|object| object.key.as_str());
    let folders = listing.folders.iter().map(String::as_str);
    order_of_names(names)
        .or_else(|| order_of_names(folders))
        .or_else(|| order_of_cursor(listing.next.as_deref()?))
}

/// Lines `l:<last name>`, `o:<order>`, …; without the second it ascends. None of a form that we do not know.
fn order_of_cursor(cursor: &str) -> Option<Order> {
    let text = STANDARD_NO_PAD.decode(cursor.trim_end_matches('=')).ok()?;
    let text = std::str::from_utf8(&text).ok().filter(|text| text.starts_with("l:"))?;
    match text.lines().skip(1).find_map(|line| line.strip_prefix("o:")) {
        None | Some("asc") => Some(Order::Ascending),
        Some("desc") => Some(Order::Descending),
        Some(_) => None,
    }
}

/// Keys and bucket names in a path: everything but the unreserved characters and the slash is escaped.
fn escape(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a string grows");
        }
    }
    escaped
}

fn bypass_caches(url: &mut String) {
    write!(url, "?v={:016x}", rand::random::<u64>()).expect("a string grows");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_segments_and_escapes_the_rest() {
        assert_eq!(escape(".history/u/s/1-2.base.tar.zst"), ".history/u/s/1-2.base.tar.zst");
        assert_eq!(escape("a//b c/@+=$?/"), "a//b%20c/%40%2B%3D%24%3F/");
        assert_eq!(escape("\u{e4}"), "%C3%A4");
    }

    #[test]
    fn the_cursor_tells_the_order() {
        let cursor = |text: &str| order_of_cursor(&STANDARD.encode(text));
        // As the server gave it.
        assert_eq!(
            order_of_cursor("bDouaGlzdG9yeS91L3MvY2xhaW0tMQpvOmRlc2MKYzpuYW1l"),
            Some(Order::Descending)
        );
        assert_eq!(cursor("l:k\no:asc"), Some(Order::Ascending));
        assert_eq!(cursor("l:k"), Some(Order::Ascending));
        assert_eq!(cursor("l:o:desc"), Some(Order::Ascending), "a name is no order");
        assert_eq!(cursor("x"), None);
        assert_eq!(order_of_cursor("!!!"), None);
    }
}
