//! What an upload says: a raw body with headers, or a form.

use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;

use super::error::Refusal;
use super::index::Labels;

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The boundary, if the body is a form.
pub(super) fn boundary(headers: &HeaderMap) -> Option<&str> {
    let form = header(headers, CONTENT_TYPE.as_str())?;
    let form = form.strip_prefix("multipart/form-data")?;
    form.split(';').find_map(|part| part.trim().strip_prefix("boundary=")).map(|b| b.trim_matches('"'))
}

/// The labels of a raw upload.
pub(super) fn raw(headers: &HeaderMap, owner: Option<String>) -> Labels {
    let mime = header(headers, CONTENT_TYPE.as_str()).unwrap_or("application/octet-stream").to_owned();
    let cache_control = header(headers, CACHE_CONTROL.as_str()).unwrap_or("no-cache").to_owned();
    // What is no JSON in base64 is silently ignored.
    let user_metadata = header(headers, "x-metadata")
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_else(|| json!({}));
    Labels { mime, cache_control, user_metadata, owner }
}

/// The file and the labels of a form. Fields may stand before or after the file.
pub(super) fn form(body: &Bytes, boundary: &str, owner: Option<String>) -> Result<(Labels, Bytes), Refusal> {
    let mut file = None;
    let mut labels = Labels {
        mime: "application/octet-stream".into(),
        cache_control: "no-cache".into(),
        user_metadata: json!({}),
        owner,
    };
    for (head, content) in parts(body, boundary) {
        let head = String::from_utf8_lossy(&head);
        let quoted = |name: &str| {
            let start = head.find(name)? + name.len();
            Some(&head[start..start + head[start..].find('"')?])
        };
        if quoted("filename=\"").is_some() {
            let mime = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
            });
            labels.mime = mime.unwrap_or(labels.mime);
            file = Some(content);
            continue;
        }
        let value = String::from_utf8_lossy(&content).into_owned();
        match quoted(" name=\"") {
            Some("cacheControl") => labels.cache_control = format!("max-age={value}"),
            Some("metadata") => {
                labels.user_metadata = serde_json::from_str(&value).unwrap_or(json!({}));
            }
            Some("contentType") => labels.mime = value,
            _ => {}
        }
    }
    file.map(|file| (labels, file)).ok_or(Refusal::NoContent)
}

/// Head and content of every part.
fn parts(body: &Bytes, boundary: &str) -> Vec<(Bytes, Bytes)> {
    let find = |from: usize, what: &[u8]| {
        body[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
    };
    let mark = format!("--{boundary}");
    let (mut parts, mut at) = (Vec::new(), find(0, mark.as_bytes()));
    while let Some(start) = at.map(|at| at + mark.len()) {
        at = find(start, format!("\r\n{mark}").as_bytes()).map(|at| at + 2);
        let (Some(end), Some(head_end)) = (at, find(start, b"\r\n\r\n")) else { break };
        if head_end + 4 <= end - 2 {
            parts.push((body.slice(start..head_end), body.slice(head_end + 4..end - 2)));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_stand_on_either_side_of_the_file() {
        let body = "--X\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{\"k\":\"v\"}\r\n\
            --X\r\nContent-Disposition: form-data; name=\"\"; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\na\r\n\r\nb\r\n\
            --X\r\nContent-Disposition: form-data; name=\"cacheControl\"\r\n\r\n77\r\n--X--\r\n";
        let (labels, file) = form(&body.into(), "X", None).unwrap();
        assert_eq!((&file[..], labels.mime.as_str()), (&b"a\r\n\r\nb"[..], "text/plain"));
        assert_eq!((labels.cache_control.as_str(), &labels.user_metadata["k"]), ("max-age=77", &json!("v")));
    }

    #[test]
    fn an_empty_file_is_a_file_and_a_field_is_none() {
        let file = "--X\r\nContent-Disposition: form-data; name=\"\"; filename=\"f\"\r\n\r\n\r\n--X--\r\n";
        assert!(form(&file.into(), "X", None).unwrap().1.is_empty());
        let field = "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nZ\r\n--X--\r\n";
        assert!(form(&field.into(), "X", None).is_err());
    }
}
