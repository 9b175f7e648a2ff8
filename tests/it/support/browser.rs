//! A Chromium without a screen, driven as a person would: it clicks what can be seen, and reads what is shown.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use thirtyfour::prelude::*;
use thirtyfour::{LoggingPrefsLogLevel, WebDriver, WebElement};
use tokio::time::{Instant, sleep};

/// What people hold: a narrow phone, a phone, a desk.
const SIZES: [(u32, u32); 3] = [(360, 640), (390, 844), (1280, 800)];

/// A browser with nothing remembered; gone with the test.
pub struct Browser {
    _chromedriver: Chromedriver,
    driver: WebDriver,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        // The first client of a process decides who does its cryptography; another test's may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let profile = tempfile::tempdir().unwrap();
        let (chromedriver, port) = Chromedriver::start(profile.path());
        let mut wanted = DesiredCapabilities::chrome();
        let args = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        // A container's root has no sandbox, and the pages are our own.
        for arg in args.into_iter().chain(["--no-sandbox"]) {
            wanted.add_arg(arg).unwrap();
        }
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All).unwrap();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), wanted).await;
        Self { driver: driver.unwrap(), _chromedriver: chromedriver, _profile: profile }
    }

    /// Opens the page of a server, with nothing in the address but what follows its root.
    pub async fn open(&self, base: &str, rest: &str) {
        self.driver.goto(format!("{base}/{rest}")).await.unwrap();
    }

    /// Fills in the form and sends it.
    pub async fn sign_in(&self, token: &str, user: &str) {
        self.write("#token", token).await;
        self.write("#user", user).await;
        self.click("#sign-in-form button").await;
    }

    /// Waits until an element can be seen, and says this.
    pub async fn see(&self, selector: &str, text: &str) {
        let what = format!("{selector} says {text:?}");
        self.until(&what, async || self.shown(selector).await.is_some_and(|shown| shown.contains(text)))
            .await;
    }

    /// Waits until no such element can be seen.
    pub async fn gone(&self, selector: &str) {
        self.until(&format!("{selector} is gone"), async || self.shown(selector).await.is_none()).await;
    }

    pub async fn click(&self, selector: &str) {
        self.element(selector).await.click().await.unwrap();
    }

    /// In place of what is there.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        element.clear().await.unwrap();
        element.send_keys(text).await.unwrap();
    }

    /// The value of an expression in the page.
    pub async fn value(&self, expression: &str) -> Value {
        let answer = self.driver.execute(format!("return ({expression})"), Vec::new()).await.unwrap();
        answer.json().clone()
    }

    /// Waits until an expression is true in the page.
    pub async fn holds(&self, expression: &str) {
        self.until(expression, async || self.value(expression).await == true).await;
    }

    /// What the browser has to say against the page: refused by the content security policy, thrown, not found.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.driver.get_log("browser").await.unwrap();
        log.into_iter().map(|entry| entry.message).collect()
    }

    /// Looks at the page in every size and both schemes: the pictures go to `target/screenshots/`. Nothing may be cut off at
    /// the side, and whatever is touched must be big enough for a thumb.
    pub async fn look(&self, name: &str) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&dir).unwrap();
        for (width, height) in SIZES {
            for scheme in ["light", "dark"] {
                let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
                self.tell("Emulation.setDeviceMetricsOverride", size).await;
                let feature = json!({"name": "prefers-color-scheme", "value": scheme});
                self.tell("Emulation.setEmulatedMedia", json!({"features": [feature]})).await;
                self.value("document.getAnimations().forEach((one) => one.finish())").await;
                let here = format!("{name} at {width} px, {scheme}");
                let wide = self.value("document.documentElement.scrollWidth").await.as_u64().unwrap();
                assert!(wide <= width.into(), "{here}: {wide} px wide");
                let small = self.value(SMALL).await;
                assert_eq!(small, json!([]), "{here}: too small to touch");
                let tall = self.value("document.documentElement.scrollHeight").await;
                let all = json!({"x": 0, "y": 0, "width": width, "height": tall, "scale": 1});
                let how = json!({"captureBeyondViewport": true, "clip": all});
                let picture = self.tell("Page.captureScreenshot", how).await;
                let png = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
                std::fs::write(dir.join(format!("{name}-{scheme}-{width}.png")), png).unwrap();
            }
        }
        self.tell("Emulation.clearDeviceMetricsOverride", json!({})).await;
    }

    pub async fn close(self) {
        self.driver.clone().quit().await.unwrap();
    }

    async fn tell(&self, command: &str, parameters: Value) -> Value {
        self.driver.cdp().send_raw(command, parameters).await.unwrap()
    }

    /// The text of the first such element that can be seen.
    async fn shown(&self, selector: &str) -> Option<String> {
        self.first_shown(selector).await?.text().await.ok()
    }

    async fn first_shown(&self, selector: &str) -> Option<WebElement> {
        for element in self.driver.find_all(By::Css(selector)).await.unwrap() {
            // It may go away while it is looked at.
            if element.is_displayed().await.unwrap_or(false) {
                return Some(element);
            }
        }
        None
    }

    async fn element(&self, selector: &str) -> WebElement {
        let mut found = None;
        self.until(&format!("{selector} is there"), async || {
            found = self.first_shown(selector).await;
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds().await {
            if Instant::now() > deadline {
                let page = self.value("document.body.innerText").await;
                panic!("not in time: {what}\n{}", page.as_str().unwrap());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A failed test has not closed it: the browser ends with its driver, and to ask it nicely would block the runtime.
        let _ = self.driver.clone().leak();
    }
}

/// Whatever is to be touched and is lower than 44 px.
const SMALL: &str = "[...document.querySelectorAll('button, input, textarea, summary')]
    .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44)
    .map((one) => one.outerHTML)";

/// The process that drives the browser; the browser ends with it.
struct Chromedriver {
    child: Child,
    /// Kept open: what it still writes must not end it.
    out: BufReader<ChildStdout>,
}

impl Chromedriver {
    fn start(profile: &Path) -> (Self, u16) {
        let mut command = Command::new("chromedriver");
        // Profiles of browsers go where the test removes them.
        command.arg("--port=0").env("TMPDIR", profile).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("no chromedriver: tests/run.sh installs it");
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut driver = Self { child, out };
        let port = driver.out.by_ref().lines().find_map(|line| {
            let line = line.ok()?;
            line.strip_suffix('.')?.rsplit_once("successfully on port ")?.1.parse().ok()
        });
        (driver, port.expect("chromedriver ended"))
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
