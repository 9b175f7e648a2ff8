//! An HTTP server that answers as a script says, down to the bytes: it cuts, stalls and resets.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request.
pub enum Step {
    /// These bytes, then the end of the connection.
    Send(String),
    /// These bytes, then silence.
    Stall(String),
    /// The connection is reset.
    Reset,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Request line and headers, lower case but for the request line.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Seen {
    /// Method and path without the query.
    pub fn route(&self) -> &str {
        let line = self.head.split(" HTTP/").next().unwrap_or_default();
        line.split('?').next().unwrap_or_default()
    }

    /// A header, empty when missing.
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map_or("", |(_, value)| value)
    }
}

/// A running server; it ends with the test.
pub struct Scripted {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Scripted {
    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A JSON answer.
pub fn json(status: u16, body: &str) -> Step {
    with(status, "content-type: application/json\r\n", body)
}

/// An answer with more headers, each ended by CRLF.
pub fn with(status: u16, headers: &str, body: &str) -> Step {
    let length = body.len();
    Step::Send(format!(
        "HTTP/1.1 {status} Said\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))
}

/// Answers each request by its number (from 0) and what it says.
pub async fn serve(script: impl Fn(usize, &Seen) -> Step + Send + Sync + 'static) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, script) = (Arc::clone(&seen), Arc::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (log, script) = (Arc::clone(&log), Arc::clone(&script));
            tokio::spawn(async move { converse(stream, &log, &*script).await });
        }
    });
    Scripted { url, seen }
}

async fn converse(
    mut stream: TcpStream,
    log: &Mutex<Vec<Seen>>,
    script: &(dyn Fn(usize, &Seen) -> Step + Send + Sync),
) -> io::Result<()> {
    let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
    let step = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        script(log.len() - 1, &request)
    };
    answer(&mut stream, &step).await?;
    match step {
        Step::Send(_) => stream.shutdown().await,
        // Whoever waits for more gives up first.
        Step::Stall(_) => stream.read(&mut [0; 1]).await.map(drop),
        Step::Reset =>
        {
            #[expect(
                deprecated,
                reason = "a reset is what the test is about, and it does not block with zero"
            )]
            stream.set_linger(Some(std::time::Duration::ZERO))
        }
    }
}

/// Reads one request; none when the connection ended before it.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Seen>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let (line, headers) = text.split_once("\r\n").unwrap_or((&text, ""));
    let mut head = vec![line.to_owned()];
    for (name, value) in headers.lines().filter_map(|header| header.split_once(": ")) {
        head.push(format!("{}: {value}", name.to_ascii_lowercase()));
    }
    let mut request = Seen { head: head.join("\n"), body: String::new() };
    let length: usize = request.header("content-length").parse().unwrap_or(0);
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    request.body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
    Ok(Some(request))
}

/// Writes what a step says.
pub async fn answer(stream: &mut (impl AsyncWrite + Unpin), step: &Step) -> io::Result<()> {
    match step {
        Step::Send(bytes) | Step::Stall(bytes) => {
            stream.write_all(bytes.as_bytes()).await?;
            stream.flush().await
        }
        Step::Reset => Ok(()),
    }
}
