//! `migrate` and `import`.

// Comments on flags are what `--help` prints, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::options::{HoldArgs, PlaceArgs, RemoteArgs};
use crate::sync::migrate::find::Levels;
use crate::sync::start::Side;

/// `migrate`
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
pub struct Migrate {
    /// Where the trees lie, if not in the root: they are read there and never written. Also one SQLite file
    #[arg(long, value_name = "DIR|FILE")]
    pub from: Option<PathBuf>,
    /// How sessions lie there
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Levels::Auto, conflicts_with = "session")]
    pub layout: Levels,
    /// Not what lies on a disk, but the bucket's plain files that have no history: they become its first commit
    #[arg(long, conflicts_with_all = ["from", "layout", "cleanup"])]
    pub from_mirror: bool,
    /// Only say what would be done (exit 3 when something would be refused)
    #[arg(long)]
    pub dry_run: bool,
    /// Also restore beside, and compare, what is in the bucket already
    #[arg(long)]
    pub verify: bool,
    /// Remove the local files of every session that was restored beside and found to be the same, byte for byte; with a
    /// LevelDB, also what LevelDB does not need of its directory
    #[arg(long)]
    pub cleanup: bool,
    /// Do not ask before the cleanup; needed where there is no terminal to ask at
    #[arg(long, short)]
    pub yes: bool,
    /// Where trees are restored to, to compare them (default: in the root's state directory; with --from the system's
    /// directory for temporary files)
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Which side counts where a tree and the bucket differ: local commits the tree and pins the bucket's, remote keeps the
    /// bucket's. Without it such a session is refused
    #[arg(long, value_enum, value_name = "SIDE", env = "SIDECAR_ON_CONFLICT", hide_possible_values = true)]
    pub on_conflict: Option<Side>,
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
}

/// `import`
#[derive(Debug, Args)]
#[command(mut_arg("session", |arg| arg.help("The session that it becomes").required(true)))]
#[command(mut_arg("user", |arg| arg.hide(true)))]
pub struct Import {
    /// What `export` wrote: an archive, a directory, or - for an archive on stdin
    #[arg(value_name = "FILE.tar.zst|DIR|-")]
    pub source: PathBuf,
    /// Where it is unpacked, and restored to, to compare it (default: the system's directory for temporary files)
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Where the sessions lie.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the history lies.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// How history is kept.
    #[command(flatten)]
    pub hold: HoldArgs,
}

impl ValueEnum for Levels {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::One, Self::Two]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto").help("Found by looking"),
            Self::One => PossibleValue::new("one").help("DIR/{session}/…, all of --user"),
            Self::Two => PossibleValue::new("two").help("DIR/{user}/{session}/…"),
        })
    }
}
