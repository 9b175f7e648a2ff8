//! From method and path to the call. Keys are whatever follows the bucket, so that paths are split as they come
//! (`a//b`, `%2F`) and no router that tidies them stands in between.

use axum::http::Method;

use super::error::Refusal;

/// A call of the storage API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Status,
    Version,
    Health,
    Buckets,
    Bucket,
    CreateBucket,
    UpdateBucket,
    DeleteBucket,
    EmptyBucket,
    Upload,
    Get(Access),
    Info(Access),
    List,
    ListV2,
    Move,
    Copy,
    Delete,
    DeleteMany,
}

/// How a read proves its right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// `/object/authenticated/…`: by a token.
    Token,
    /// `/object/public/…`: by the bucket being public.
    Public,
    /// `/object/…`: by either. A bad token is answered as a missing bucket.
    Any,
}

/// A call with its names, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) op: Op,
    /// What requests are counted under.
    pub(super) name: &'static str,
    pub(super) bucket: String,
    pub(super) key: String,
}

/// Undoes percent-encoding, once.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(hex::decode(digits).ok()?[0]);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

impl Route {
    /// `path` is below `/storage/v1`, without a query.
    pub(super) fn parse(method: &Method, path: &str) -> Result<Self, Refusal> {
        let Some((op, name, bucket, key)) = find(method, path) else {
            return Err(Refusal::NoRoute(format!("{method}:{path}")));
        };
        match (decode(bucket), decode(key)) {
            (Some(bucket), Some(key)) => Ok(Self { op, name, bucket, key }),
            _ => Err(Refusal::BadUrl(path.to_owned())),
        }
    }
}

type Found<'a> = (Op, &'static str, &'a str, &'a str);

fn find<'a>(method: &Method, path: &'a str) -> Option<Found<'a>> {
    if let Some(rest) = path.strip_prefix("/object/") {
        return find_object(method, rest);
    }
    if let Some(rest) = path.strip_prefix("/bucket") {
        return match (method.as_str(), rest.strip_prefix('/').unwrap_or(rest)) {
            ("GET", "") => Some((Op::Buckets, "GET /bucket", "", "")),
            ("POST", "") => Some((Op::CreateBucket, "POST /bucket", "", "")),
            ("GET", id) => Some((Op::Bucket, "GET /bucket/{id}", id, "")),
            ("PUT", id) => Some((Op::UpdateBucket, "PUT /bucket/{id}", id, "")),
            ("DELETE", id) => Some((Op::DeleteBucket, "DELETE /bucket/{id}", id, "")),
            ("POST", rest) => {
                Some((Op::EmptyBucket, "POST /bucket/{id}/empty", rest.strip_suffix("/empty")?, ""))
            }
            _ => None,
        };
    }
    match (method.as_str(), path) {
        ("GET", "/status") => Some((Op::Status, "GET /status", "", "")),
        ("GET", "/version") => Some((Op::Version, "GET /version", "", "")),
        ("GET", "/health") => Some((Op::Health, "GET /health", "", "")),
        _ => None,
    }
}

fn find_object<'a>(method: &Method, rest: &'a str) -> Option<Found<'a>> {
    let Some((first, below)) = rest.split_once('/') else {
        return match (method.as_str(), rest) {
            ("POST", "move") => Some((Op::Move, "POST /object/move", "", "")),
            ("POST", "copy") => Some((Op::Copy, "POST /object/copy", "", "")),
            ("DELETE", bucket) => Some((Op::DeleteMany, "DELETE /object/{bucket}", bucket, "")),
            _ => None,
        };
    };
    let object = |op, name, path: &'a str| path.split_once('/').map(|(bucket, key)| (op, name, bucket, key));
    match (method.as_str(), first) {
        // Signed URLs are not spoken here.
        (_, "sign" | "upload") => None,
        ("POST", "list") if !below.contains('/') => Some((Op::List, "POST /object/list/{bucket}", below, "")),
        ("POST", "list-v2") if !below.contains('/') => {
            Some((Op::ListV2, "POST /object/list-v2/{bucket}", below, ""))
        }
        ("GET" | "HEAD", "authenticated") => {
            let name = if method == Method::HEAD {
                "HEAD /object/authenticated/{bucket}/{key}"
            } else {
                "GET /object/authenticated/{bucket}/{key}"
            };
            object(Op::Get(Access::Token), name, below)
        }
        ("GET" | "HEAD", "public") => {
            object(Op::Get(Access::Public), "GET /object/public/{bucket}/{key}", below)
        }
        ("GET" | "HEAD", "info") => match below.split_once('/')? {
            ("authenticated", path) => {
                object(Op::Info(Access::Token), "GET /object/info/authenticated/{bucket}/{key}", path)
            }
            ("public", path) => {
                object(Op::Info(Access::Public), "GET /object/info/public/{bucket}/{key}", path)
            }
            _ => object(Op::Info(Access::Any), "GET /object/info/{bucket}/{key}", below),
        },
        ("GET" | "HEAD", _) => object(Op::Get(Access::Any), "GET /object/{bucket}/{key}", rest),
        ("POST", _) => object(Op::Upload, "POST /object/{bucket}/{key}", rest),
        ("PUT", _) => object(Op::Upload, "PUT /object/{bucket}/{key}", rest),
        ("DELETE", _) => object(Op::Delete, "DELETE /object/{bucket}/{key}", rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_through_as_they_are() {
        let key = |path: &str| Route::parse(&Method::POST, path).unwrap().key;
        for (path, wanted) in [
            ("/object/b1/k//z", "k//z"),
            ("/object/b1//k/z", "/k/z"),
            ("/object/b1/k/z/", "k/z/"),
            ("/object/b1/k%2Fz", "k/z"),
            ("/object/b1/a%252Fb", "a%2Fb"),
            ("/object/b1/k/../z", "k/../z"),
            ("/object/b1/+@:", "+@:"),
            ("/object/b1/%C3%A4", "ä"),
            ("/object/b1/", ""),
        ] {
            assert_eq!(key(path), wanted, "{path}");
        }
        assert_eq!(Route::parse(&Method::POST, "/object/b1/%zz").unwrap_err().said().2, "FST_ERR_BAD_URL");
    }

    #[test]
    fn what_is_not_spoken_is_an_unknown_route() {
        for (method, path) in [
            (Method::POST, "/object/b1"),
            (Method::PATCH, "/object/b1/g/f.txt"),
            (Method::POST, "/object/sign/b1/k"),
            (Method::POST, "/object/upload/sign/b1/k"),
            (Method::POST, "/upload/resumable"),
            (Method::GET, "/s3/b1/k"),
        ] {
            assert_eq!(Route::parse(&method, path).unwrap_err().said().0, 404, "{method} {path}");
        }
    }
}
