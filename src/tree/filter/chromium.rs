//! What of a Chromium profile is kept: the login of WhatsApp Web, and nothing else.
//!
//! whatsapp-web.js' own `RemoteAuth` keeps `IndexedDB` and `Local Storage` of the profile, and a browser that finds only
//! these is logged in. All else is a cache, is made again, or names the machine it ran on; most of it is locked for as
//! long as the browser runs, and grows by a gigabyte in two days.

/// What is kept of a profile, by its name in it.
const LOGIN: [&str; 2] = ["IndexedDB", "Local Storage"];

/// What lies beside the profile in the browser's directory, and what never needs to be kept wherever it lies.
pub(super) const BESIDE_THE_LOGIN: &[&str] = &[
    // Names the host and the process of a browser that ran; the next one does not start beside it.
    "Singleton*",
    "DevToolsActivePort",
    // LevelDB locks it, and writes its diary.
    "LOCK",
    "LOG",
    "LOG.old",
    "*.dbtmp",
    // Caches.
    "Cache",
    "Code Cache",
    "GPUCache",
    "Dawn*Cache",
    "ShaderCache",
    "GrShaderCache",
    "GraphiteDawnCache",
    "PnaclTranslationCache",
    "component_crx_cache",
    "extensions_crx_cache",
    "Service Worker",
    // The web version of WhatsApp, as whatsapp-web.js keeps it.
    ".wwebjs_cache",
    // Reports on the browser itself.
    "Crashpad",
    "Crash Reports",
    "BrowserMetrics*",
    "CrashpadMetrics*",
    "chrome_debug.log",
    "Variations",
    // Settings that a browser without them begins anew; the key in them is the same on every Linux.
    "Local State",
    "Last Version",
    "Last Browser",
    "First Run",
    "*.tmp",
    "first_party_sets.db*",
    "segmentation_platform",
    "NativeMessagingHosts",
    "System Profile",
    "Guest Profile",
    // Components, which the browser loads again.
    "ActorSafetyLists",
    "AmountExtractionHeuristicRegexes",
    "AutofillStates",
    "CaptchaProviders",
    "CertificateRevocation",
    "Crowd Deny",
    "Dictionaries",
    "FileTypePolicies",
    "FirstPartySetsPreloaded",
    "MEIPreload",
    "OnDeviceHeadSuggestModel",
    "OptimizationHints",
    "optimization_guide_model_store",
    "OriginTrials",
    "PKIMetadata",
    "PrivacySandboxAttestationsPreloaded",
    "RecoveryImproved",
    "SSLErrorAssistant",
    "Safe Browsing",
    "SafetyTips",
    "Subresource Filter",
    "TpcdMetadata",
    "TrustTokenKeyCommitments",
    "WasmTtsEngine",
    "Webstore Downloads",
    "WidevineCdm",
    "ZxcvbnData",
    "hyphen-data",
    // What RemoteAuth of whatsapp-web.js packs and unpacks.
    "wwebjs_temp_session_*",
    "RemoteAuth*.zip",
];

/// Whether a directory is a profile, by its name.
pub(super) fn is_profile(name: &str) -> bool {
    name == "Default" || name.strip_prefix("Profile ").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Whether something in a profile is a part of the login, by its name.
pub(super) fn is_login(name: &str) -> bool {
    LOGIN.contains(&name)
}

/// Whether a path lies in a profile, and not in its login. Not a list of names: every version of the browser brings
/// more of them.
pub(super) fn is_beside_the_login(path: &str) -> bool {
    let mut parts = path.split('/').skip_while(|part| !is_profile(part)).skip(1);
    parts.next().is_some_and(|name| !is_login(name))
}
