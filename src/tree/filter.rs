//! Which files of a directory are part of its tree.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

mod chromium;

use super::Dir;
use super::json::has_json_name;
use crate::error::{Code, Error};
use crate::session::{LOST_AND_FOUND, STATE_DIR};

/// What kind of bot writes the tree; decides what is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Baileys' `useMultiFileAuthState`: one JSON file a key.
    Baileys,
    /// whatsapp-web.js, wppconnect and the like: a Chromium profile.
    WhatsappWebJs,
    /// whatsmeow, wuzapi, GOWA: SQLite.
    Whatsmeow,
    /// whatsapp-rust: SQLite.
    WhatsappRust,
}

impl Preset {
    /// All of them, for messages and `--help`.
    pub const ALL: [Self; 4] = [Self::Baileys, Self::WhatsappWebJs, Self::Whatsmeow, Self::WhatsappRust];

    /// The name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baileys => "baileys",
            Self::WhatsappWebJs => "whatsapp-web.js",
            Self::Whatsmeow => "whatsmeow",
            Self::WhatsappRust => "whatsapp-rust",
        }
    }

    /// Another name that people know it by.
    #[must_use]
    pub fn alias(self) -> Option<&'static str> {
        (self == Self::WhatsappWebJs).then_some("wwebjs")
    }

    /// What never needs to be kept.
    fn excludes(self) -> &'static [&'static str] {
        match self {
            Self::Baileys => &[],
            Self::WhatsappWebJs => chromium::BESIDE_THE_LOGIN,
            // What GOWA shows and sends, beside its databases.
            Self::Whatsmeow => &["storages/ui", "statics/qrcode", "statics/media"],
            Self::WhatsappRust => &[".waxum.lock"],
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_meant = |preset: &Self| preset.as_str() == text || preset.alias() == Some(text);
        Self::ALL.into_iter().find(is_meant).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::new(Code::Usage, format!("no preset `{text}`: there are {names}"))
        })
    }
}

/// Finds the kind of a tree by the paths in it; the two upper levels are enough. None when nothing tells.
pub fn detect<'a>(paths: impl IntoIterator<Item = &'a str>) -> Option<Preset> {
    // A profile holds databases, and a bot may keep a profile beside its JSON: the larger find wins.
    let rank = |preset: Preset| match preset {
        Preset::WhatsappWebJs => 3,
        Preset::Baileys => 2,
        Preset::WhatsappRust => 1,
        Preset::Whatsmeow => 0,
    };
    paths.into_iter().filter_map(detect_one).max_by_key(|preset| rank(*preset))
}

fn detect_one(path: &str) -> Option<Preset> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "Local State" | "DevToolsActivePort" | "SingletonLock" => Some(Preset::WhatsappWebJs),
        name if chromium::is_login(name) && above.rsplit('/').next().is_some_and(chromium::is_profile) => {
            Some(Preset::WhatsappWebJs)
        }
        "creds.json" => Some(Preset::Baileys),
        "whatsapp.db" if above.rsplit('/').next() == Some("storages") => Some(Preset::Whatsmeow),
        "whatsapp.db" | ".waxum.lock" => Some(Preset::WhatsappRust),
        _ if [".db", ".sqlite", ".sqlite3"].iter().any(|end| name.ends_with(end)) => Some(Preset::Whatsmeow),
        _ => None,
    }
}

/// Says of every path whether it belongs to the tree. Paths are relative to the session directory.
#[derive(Debug, Clone)]
pub struct Filter {
    preset: Option<Preset>,
    include: Vec<String>,
    exclude: Vec<String>,
    included: Option<GlobSet>,
    excluded: GlobSet,
    live: BTreeSet<String>,
}

impl Filter {
    /// A filter of globs. With any `include`, only files that match one (or lie below a directory that
    /// does) belong to the tree; `exclude` and the preset's own excludes win.
    ///
    /// A glob matches at any depth, one that starts with `/` from the top; `*` does not cross a `/`, `**`
    /// does. What matches a directory matches everything below it; one that ends with `/` nothing else.
    ///
    /// # Errors
    /// [`Code::Usage`] when a glob does not parse.
    pub fn new(preset: Option<Preset>, include: &[String], exclude: &[String]) -> Result<Self, Error> {
        let own = preset.map_or(&[][..], Preset::excludes).iter().copied();
        Ok(Self {
            preset,
            include: include.to_vec(),
            exclude: exclude.to_vec(),
            included: match include {
                [] => None,
                globs => Some(set("--include", globs.iter().map(String::as_str))?),
            },
            excluded: set("--exclude", exclude.iter().map(String::as_str).chain(own))?,
            live: BTreeSet::new(),
        })
    }

    /// The same with the names of databases, in whatever directory, that this very process has open: nothing but SQLite
    /// may ever open them, for closing them drops the locks under which they are written.
    #[must_use]
    pub fn with_live_databases(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { live: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// Whether a path is a database that this process may have open.
    #[must_use]
    pub fn is_live(&self, path: &str) -> bool {
        self.live.contains(path.rsplit('/').next().unwrap_or(path))
    }

    /// The same globs for a tree whose kind was found by looking; a preset that was given stays.
    #[must_use]
    pub fn for_tree<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Self {
        match (self.preset, detect(paths)) {
            (None, Some(found)) => Self::new(Some(found), &self.include, &self.exclude)
                .expect("these globs were parsed before, and a preset's own are tested")
                .with_live_databases(self.live.clone()),
            _ => self.clone(),
        }
    }

    /// The same for a tree on disk: looks at the names of its two upper levels, and of a profile's there, unless a preset was given.
    pub fn for_dir(&self, dir: &Dir) -> io::Result<Self> {
        if self.preset.is_some() {
            return Ok(self.clone());
        }
        let mut paths = Vec::new();
        for name in dir.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
            // A directory that cannot be listed tells nothing. JSON files come in thousands.
            let may_tell = !has_json_name(&name) && self.enters(&name);
            let below = may_tell.then(|| dir.dir(&name).and_then(|dir| dir.names()));
            let below = below.and_then(Result::ok).unwrap_or_default();
            for below in below.iter().filter_map(|below| Some(format!("{name}/{}", below.to_str()?))) {
                // Of a profile that was restored, only this tells that it is one.
                if below.rsplit('/').next().is_some_and(chromium::is_profile) {
                    let names = dir.dir(&below).and_then(|dir| dir.names()).unwrap_or_default();
                    let names = names.iter().filter_map(|name| name.to_str());
                    paths.extend(names.map(|name| format!("{below}/{name}")));
                }
                paths.push(below);
            }
            paths.push(name);
        }
        Ok(self.for_tree(paths.iter().map(String::as_str)))
    }

    /// The preset, given or found.
    #[must_use]
    pub fn preset(&self) -> Option<Preset> {
        self.preset
    }

    /// Whether a file at this path belongs to the tree.
    #[must_use]
    pub fn includes(&self, path: &str) -> bool {
        self.enters(path) && self.included.as_ref().is_none_or(|set| set.is_match(path))
    }

    /// Whether anything below this directory can belong to the tree.
    #[must_use]
    pub fn enters(&self, dir: &str) -> bool {
        let top = dir.split('/').next().unwrap_or_default();
        let beside = self.preset == Some(Preset::WhatsappWebJs) && chromium::is_beside_the_login(dir);
        top != STATE_DIR && top != LOST_AND_FOUND && !beside && !self.excluded.is_match(dir)
    }

    /// Whether a restore removes what lies at this path although it is in no tree: the locks of a
    /// Chromium that ran on another machine, with which the next one refuses to start.
    #[must_use]
    pub fn removes_on_restore(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.preset == Some(Preset::WhatsappWebJs) && name.starts_with("Singleton")
    }
}

fn set<'a>(flag: &str, globs: impl Iterator<Item = &'a str>) -> Result<GlobSet, Error> {
    let bad = |glob: &str, why: &dyn fmt::Display| {
        Error::new(Code::Usage, format!("{flag}: `{glob}` is not a glob: {why}"))
    };
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        let trimmed = glob.trim_end_matches('/');
        let pattern = match trimmed.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if trimmed.starts_with("**/") => trimmed.to_owned(),
            None => format!("**/{trimmed}"),
        };
        if trimmed.trim_start_matches('/').is_empty() {
            return Err(bad(glob, &"it matches no name"));
        }
        // A glob that ends with a slash means directories alone.
        let itself = (trimmed.len() == glob.len()).then(|| pattern.clone());
        for pattern in itself.into_iter().chain([format!("{pattern}/**")]) {
            let compiled = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build();
            builder.add(compiled.map_err(|error| bad(glob, error.kind()))?);
        }
    }
    builder.build().map_err(|error| Error::new(Code::Usage, format!("{flag}: too many globs")).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        Filter::new(None, &owned(include), &owned(exclude)).unwrap()
    }

    #[test]
    fn a_preset_is_named_as_its_bot_is() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
            Filter::new(Some(preset), &[], &[]).unwrap();
        }
        assert_eq!("wwebjs".parse::<Preset>().unwrap(), Preset::WhatsappWebJs);
        let error = "venom".parse::<Preset>().unwrap_err();
        assert_eq!(error.code(), Code::Usage);
        assert!(error.to_string().contains("whatsapp-web.js"), "{error}");
    }

    #[test]
    fn the_state_directory_and_lost_and_found_are_left_out_at_the_top_alone() {
        let filter = filter(&["**"], &[]);
        assert!(!filter.includes(".session-sidecar/state.json"));
        assert!(!filter.enters(".session-sidecar"));
        assert!(!filter.enters("lost+found"));
        assert!(filter.includes("keys/lost+found/a"));
        assert!(filter.includes("creds.json"));
    }

    #[test]
    fn exclude_wins_over_include() {
        let filter = filter(&["*.json"], &["tctoken-*", "/keys/old/"]);
        assert!(filter.includes("creds.json"));
        assert!(filter.includes("keys/pre-key-1.json"));
        assert!(!filter.includes("creds.txt"));
        assert!(!filter.includes("keys/tctoken-1@lid.json"));
        assert!(!filter.includes("keys/old/a.json"));
        assert!(!filter.enters("keys/old/deeper"));
        assert!(filter.includes("more/keys/old/a.json"));
    }

    #[test]
    fn a_glob_on_a_directory_takes_what_is_below() {
        let filter = filter(&["/keys"], &["*/cache"]);
        assert!(filter.includes("keys/a/b.json"));
        assert!(!filter.includes("other/keys/b.json"));
        assert!(!filter.includes("keys/cache/b"));
        assert!(!filter.enters("keys/cache"));
    }

    #[test]
    fn a_bad_glob_is_a_usage_error_that_names_flag_and_glob() {
        for bad in ["keys/[a", "", "/", "{a"] {
            let error = Filter::new(None, &[], &[bad.to_owned()]).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(error.to_string().starts_with(&format!("--exclude: `{bad}` is not a glob")), "{error}");
        }
        let error = Filter::new(None, &["a**[".to_owned()], &[]).unwrap_err();
        assert!(error.to_string().starts_with("--include"), "{error}");
    }

    #[test]
    fn a_chromium_profile_keeps_its_login_and_loses_its_caches() {
        let filter = filter(&[], &[]).for_tree(["session-a/Default/IndexedDB", "creds.json"]);
        assert_eq!(filter.preset(), Some(Preset::WhatsappWebJs));
        for kept in [
            "session-a/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb/000003.log",
            "session-a/Default/Local Storage/leveldb/CURRENT",
            "session-a/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.blob/1/00/1",
            "session-a/token.data.json",
        ] {
            assert!(filter.includes(kept), "{kept}");
        }
        for out in [
            "session-a/SingletonLock",
            "session-a/Default/Cache/Cache_Data/f_000001",
            "session-a/Default/Code Cache/js/index",
            "session-a/Default/DawnWebGPUCache/index",
            "session-a/Default/Service Worker/CacheStorage/x/index",
            "session-a/Default/Service Worker/Database/000003.log",
            "session-a/Default/IndexedDB/x.leveldb/LOCK",
            "session-a/Default/Cookies-journal",
            "session-a/Default/what Chromium may think of next/x",
            "session-a/Crashpad/settings.dat",
            "session-a/Local State",
            "session-a/first_party_sets.db",
        ] {
            assert!(!filter.includes(out), "{out}");
        }
        assert!(filter.removes_on_restore("session-a/SingletonCookie"));
        assert!(!filter.removes_on_restore("session-a/Local State"));
        assert!(filter.enters("session-a/Default") && filter.enters("session-a/Default/IndexedDB"));
    }

    #[test]
    fn a_tree_is_known_by_its_names() {
        assert_eq!(detect(["session-1.0.json", "creds.json"]), Some(Preset::Baileys));
        assert_eq!(detect(["acc/creds.json", "acc/creds.json.bak"]), Some(Preset::Baileys));
        assert_eq!(detect(["dbdata/main.db", "dbdata/users.db"]), Some(Preset::Whatsmeow));
        assert_eq!(detect(["storages/whatsapp.db"]), Some(Preset::Whatsmeow));
        assert_eq!(detect(["whatsapp.db", "whatsapp.db-wal"]), Some(Preset::WhatsappRust));
        assert_eq!(detect(["notes.txt"]), None);
        assert_eq!(detect([]), None);
    }

    #[test]
    fn no_preset_leaves_a_database_out_or_forgets_which_are_live() {
        let live = filter(&[], &[]).with_live_databases(["whatsapp.db"]);
        for paths in [["dbdata/main.db"], ["storages/whatsapp.db"], ["whatsapp.db"], ["neonize.sqlite3"]] {
            let found = live.for_tree(paths);
            assert!(found.preset().is_some(), "{paths:?}");
            let kept = ["dbdata/main.db", "storages/whatsapp.db", "storages/chatstorage.db", "whatsapp.db"];
            assert!(kept.iter().chain(&paths).all(|path| found.includes(path)), "{paths:?}");
            assert!(found.is_live("whatsapp.db") && found.is_live("a/whatsapp.db"));
            assert!(!found.is_live("whatsapp.db-wal") && !found.is_live("main.db"));
        }
    }

    #[test]
    fn a_preset_that_was_given_is_not_overruled_by_looking() {
        let given = Filter::new(Some(Preset::Baileys), &[], &[]).unwrap();
        assert_eq!(given.for_tree(["Local State"]).preset(), Some(Preset::Baileys));
    }

    #[test]
    fn looking_reads_two_levels_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("session-a")).unwrap();
        std::fs::write(dir.path().join("session-a/Local State"), "{}").unwrap();
        let look = || filter(&[], &[]).for_dir(&Dir::open(dir.path()).unwrap()).unwrap().preset();
        assert_eq!(look(), Some(Preset::WhatsappWebJs));

        // As a restore leaves it.
        std::fs::remove_file(dir.path().join("session-a/Local State")).unwrap();
        assert_eq!(look(), None);
        std::fs::create_dir_all(dir.path().join("session-a/Default/IndexedDB")).unwrap();
        assert_eq!(look(), Some(Preset::WhatsappWebJs));
    }
}
