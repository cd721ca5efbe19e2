//! Where backups are: the location as a value, and its URL form.
//!
//! Nothing is contacted here, and no secrets are in here: credentials are found when the store is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use url::Url;

/// Where backups are: a bucket and prefix, or a local directory.
///
/// Parsed from `--storage URL` or made from a BackupStorageLocation. [`Display`](fmt::Display) is the same URL again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A bucket of an S3 store.
    S3(S3Location),
    /// A directory.
    File {
        /// Its absolute path.
        dir: PathBuf,
    },
}

/// A bucket of an S3 store, and how to talk to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys start with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The bucket's region. Without it: from the environment or profile, and with an endpoint `us-east-1`.
    pub region: Option<String>,
    /// URL of the S3 API, for stores other than AWS; `http` or `https`, no path.
    pub endpoint: Option<String>,
    /// Address the bucket in the path and not in the host name.
    pub path_style: bool,
    /// When requests carry checksums; without it, [`Checksum::WhenRequired`] with an endpoint and else
    /// [`Checksum::Always`]: AWS takes them (and wants them in object-lock buckets), other stores often do not.
    pub checksum: Option<Checksum>,
    /// The key for server-side encryption with AWS KMS.
    pub kms_key_id: Option<String>,
    /// How the store encrypts what we write.
    pub server_side_encryption: Option<Encryption>,
    /// The profile in the shared config and credentials files.
    pub profile: Option<String>,
    /// A role to assume with the credentials that were found.
    pub role_arn: Option<String>,
    /// A shared credentials file to use instead of the environment's credentials (a mounted Secret).
    pub credentials_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities to trust besides the system's. Not part of the URL.
    pub ca_bundle: Option<Vec<u8>>,
}

/// When requests and answers carry checksums of their content (besides TLS and our own digests).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Only where S3 demands them.
    WhenRequired,
    /// With every upload, and checked on every read that has one.
    Always,
}

impl Checksum {
    const ALL: [Self; 2] = [Self::WhenRequired, Self::Always];

    /// As spelled in URLs and resources.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhenRequired => "when-required",
            Self::Always => "always",
        }
    }
}

impl FromStr for Checksum {
    type Err = LocationError;

    fn from_str(value: &str) -> Result<Self, LocationError> {
        named(&Self::ALL, Self::as_str, "checksum", value)
    }
}

/// Server-side encryption, in S3's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// With keys of S3's own.
    Aes256,
    /// With a key of AWS KMS.
    Kms,
    /// Twice, with a key of AWS KMS.
    KmsDouble,
}

impl Encryption {
    const ALL: [Self; 3] = [Self::Aes256, Self::Kms, Self::KmsDouble];

    /// As spelled in S3's headers, in URLs and in resources.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::KmsDouble => "aws:kms:dsse",
        }
    }
}

impl FromStr for Encryption {
    type Err = LocationError;

    fn from_str(value: &str) -> Result<Self, LocationError> {
        named(&Self::ALL, Self::as_str, "sse", value)
    }
}

fn named<T: Copy>(
    all: &[T],
    name: fn(T) -> &'static str,
    part: &'static str,
    value: &str,
) -> Result<T, LocationError> {
    all.iter()
        .copied()
        .find(|&one| name(one) == value)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|&one| name(one)).collect();
            LocationError::new(
                part,
                format!("{value:?} is not known; it may be {}", names.join(" or ")),
            )
        })
}

/// A storage URL that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage URL: {part}: {reason}")]
pub struct LocationError {
    /// The part of the URL: `scheme`, `bucket`, `prefix`, `path`, or the name of a query key.
    pub part: String,
    /// What is wrong with it. Never repeats user names or passwords.
    pub reason: String,
}

impl LocationError {
    fn new(part: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            part: part.into(),
            reason: reason.into(),
        }
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| {
            LocationError::new(
                "scheme",
                "it must start with s3://BUCKET/PREFIX or file:///DIRECTORY",
            )
        })?;
        match scheme {
            // The url crate would take `file:dir` and `file://dir` too, as something that nobody meant.
            "file" if !rest.starts_with("///") => Err(LocationError::new(
                "path",
                "it must be absolute: file:///DIRECTORY",
            )),
            "file" => parse_file(&parse_url(text)?),
            "s3" if !rest.starts_with("//") => Err(LocationError::new(
                "bucket",
                "it must follow two slashes: s3://BUCKET/PREFIX",
            )),
            "s3" => parse_s3(&parse_url(text)?).map(Self::S3),
            other => Err(LocationError::new(
                "scheme",
                format!("{other:?} is not known; it may be s3 or file"),
            )),
        }
    }
}

fn parse_url(text: &str) -> Result<Url, LocationError> {
    let url = Url::parse(text).map_err(|error| LocationError::new("syntax", error.to_string()))?;
    if url.fragment().is_some() {
        return Err(LocationError::new("fragment", "# is not allowed"));
    }
    Ok(url)
}

fn parse_file(url: &Url) -> Result<Location, LocationError> {
    if url.query().is_some() {
        return Err(LocationError::new("query", "a directory has no options"));
    }
    let dir = url
        .to_file_path()
        .map_err(|()| LocationError::new("path", "it must be a local absolute path"))?;
    if dir.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(LocationError::new("path", "NUL is not allowed"));
    }
    Ok(Location::File { dir })
}

fn parse_s3(url: &Url) -> Result<S3Location, LocationError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LocationError::new(
            "user",
            "credentials do not belong in a URL; use AWS_* variables, a profile or a Secret",
        ));
    }
    if url.port().is_some() {
        return Err(LocationError::new(
            "port",
            "a bucket has none; use endpoint=…",
        ));
    }
    let bucket = decode("bucket", url.host_str().unwrap_or_default())?;
    let prefix = decode("prefix", url.path())?;
    let mut location = S3Location {
        bucket,
        prefix: prefix.trim_matches('/').to_owned(),
        ..S3Location::default()
    };
    let mut seen = Vec::new();
    for (key, value) in url.query_pairs() {
        if seen.contains(&key) {
            return Err(LocationError::new(key, "it is given twice"));
        }
        if value.is_empty() {
            return Err(LocationError::new(key, "it is empty"));
        }
        let value = value.into_owned();
        match key.as_ref() {
            "region" => location.region = Some(value),
            "endpoint" => location.endpoint = Some(value),
            "path-style" => location.path_style = parse_bool("path-style", &value)?,
            "checksum" => location.checksum = Some(value.parse()?),
            "kms-key-id" => location.kms_key_id = Some(value),
            "sse" => location.server_side_encryption = Some(value.parse()?),
            "profile" => location.profile = Some(value),
            "role-arn" => location.role_arn = Some(value),
            "credentials-file" => location.credentials_file = Some(value.into()),
            other => {
                return Err(LocationError::new(
                    other,
                    "it is not known; known are region, endpoint, path-style, checksum, kms-key-id, sse, profile, \
                     role-arn and credentials-file",
                ));
            }
        }
        seen.push(key);
    }
    location.validate()?;
    Ok(location)
}

fn decode(part: &'static str, text: &str) -> Result<String, LocationError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|decoded| decoded.into_owned())
        .map_err(|_| LocationError::new(part, "it is not UTF-8"))
}

fn parse_bool(part: &'static str, value: &str) -> Result<bool, LocationError> {
    value
        .parse()
        .map_err(|_| LocationError::new(part, format!("{value:?} is not true or false")))
}

impl S3Location {
    /// Checks what the types do not say; parsing has done it, a location made by hand (from a resource) needs it.
    pub fn validate(&self) -> Result<(), LocationError> {
        if self.bucket.is_empty() {
            return Err(LocationError::new(
                "bucket",
                "it is missing: s3://BUCKET/PREFIX",
            ));
        }
        // Today's rule is narrower (no capitals, 3 to 63 characters), but old buckets and other stores differ.
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !self.bucket.chars().all(allowed) || self.bucket.starts_with('.') {
            return Err(LocationError::new(
                "bucket",
                format!("{:?} is not a bucket name", self.bucket),
            ));
        }
        if !self.prefix.is_empty() {
            super::check_key(&self.prefix)
                .map_err(|reason| LocationError::new("prefix", reason))?;
        }
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        if self.kms_key_id.is_some() && self.server_side_encryption == Some(Encryption::Aes256) {
            return Err(LocationError::new(
                "kms-key-id",
                "sse=AES256 does not use a KMS key",
            ));
        }
        if let Some(role) = &self.role_arn
            && !role.starts_with("arn:")
        {
            return Err(LocationError::new(
                "role-arn",
                format!("{role:?} is not an ARN"),
            ));
        }
        if let Some(file) = &self.credentials_file
            && !file.is_absolute()
        {
            return Err(LocationError::new(
                "credentials-file",
                "the path must be absolute",
            ));
        }
        Ok(())
    }

    /// The endpoint, bucket and prefix in one spelling, for an endpoint that may come from elsewhere.
    pub(super) fn canonical_at(&self, endpoint: Option<&str>, region: Option<&str>) -> String {
        let mut canonical = format!(
            "s3://{}/{}",
            canonical_endpoint(endpoint, region),
            self.bucket
        );
        if !self.prefix.is_empty() {
            canonical.push('/');
            canonical.push_str(&self.prefix);
        }
        canonical
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), LocationError> {
    let wrong = |reason: &str| Err(LocationError::new("endpoint", reason));
    let Ok(url) = Url::parse(endpoint) else {
        return wrong("it is not a URL like https://HOST:PORT");
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return wrong("it must be a URL like https://HOST:PORT");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("credentials do not belong in a URL");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return wrong("it must end after the host and port");
    }
    Ok(())
}

/// Bucket names are unique within a partition of AWS, whatever the endpoint; other stores are told apart by host and
/// port. The scheme does not tell stores apart.
fn canonical_endpoint(endpoint: Option<&str>, region: Option<&str>) -> String {
    let url = endpoint.and_then(|endpoint| Url::parse(endpoint).ok());
    let host = url
        .as_ref()
        .and_then(Url::host_str)
        .unwrap_or("amazonaws.com");
    // A name with a final dot is the same host.
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_aws = |host: &str, domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    if is_aws(host, "amazonaws.com.cn") {
        return "aws-cn".to_owned();
    }
    if is_aws(host, "amazonaws.com") {
        let in_region = |start: &str| {
            region.is_some_and(|region| region.starts_with(start))
                || host.contains(&format!(".{start}"))
        };
        let partition = if in_region("cn-") {
            "aws-cn"
        } else if in_region("us-gov-") {
            "aws-us-gov"
        } else {
            "aws"
        };
        return partition.to_owned();
    }
    let port = url.as_ref().and_then(Url::port_or_known_default);
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

impl Location {
    /// The location in one spelling: equal strings mean the same place, whatever the credentials and options.
    ///
    /// For S3 this is the endpoint *of the location*; the environment may name another one (`AWS_ENDPOINT_URL`), which
    /// only [`Store::canonical`](super::Store::canonical) knows. For a directory, symbolic links are followed as far as
    /// it exists.
    pub fn canonical(&self) -> String {
        match self {
            Self::S3(s3) => s3.canonical_at(s3.endpoint.as_deref(), s3.region.as_deref()),
            Self::File { dir } => format!("file://{}", canonical_path(dir).display()),
        }
    }
}

/// A short name for a place, from its canonical spelling: the first 16 hex digits of its SHA-256.
///
/// Snapshots carry it, so that a sweep of one location never touches those of another.
pub fn location_id(canonical: &str) -> String {
    let mut digits = hex::encode(Sha256::digest(canonical.as_bytes()));
    digits.truncate(16);
    digits
}

pub(super) fn canonical_path(dir: &Path) -> PathBuf {
    for existing in dir.ancestors() {
        if let Ok(canonical) = existing.canonicalize() {
            let rest = dir.strip_prefix(existing).unwrap_or(Path::new(""));
            return canonical.components().chain(rest.components()).collect();
        }
    }
    dir.components().collect()
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(s3) => match s3_url(s3) {
                Some(url) => url.fmt(f),
                // Only for a location made by hand that `validate` would refuse.
                None => write!(f, "s3://{}/{}", s3.bucket, s3.prefix),
            },
            Self::File { dir } => match Url::from_file_path(dir) {
                Ok(url) => url.fmt(f),
                Err(()) => write!(f, "file://{}", dir.display()),
            },
        }
    }
}

fn s3_url(location: &S3Location) -> Option<Url> {
    let S3Location {
        bucket,
        prefix,
        region,
        endpoint,
        path_style,
        checksum,
        kms_key_id,
        server_side_encryption,
        profile,
        role_arn,
        credentials_file,
        ca_bundle: _,
    } = location;
    let mut url = Url::parse("s3://bucket").ok()?;
    url.set_host(Some(bucket)).ok()?;
    if !prefix.is_empty() {
        url.path_segments_mut().ok()?.extend(prefix.split('/'));
    }
    let credentials_file = credentials_file
        .as_ref()
        .map(|file| file.to_string_lossy().into_owned());
    let pairs = [
        ("region", region.as_deref()),
        ("endpoint", endpoint.as_deref()),
        ("path-style", path_style.then_some("true")),
        ("checksum", checksum.map(Checksum::as_str)),
        ("kms-key-id", kms_key_id.as_deref()),
        ("sse", server_side_encryption.map(Encryption::as_str)),
        ("profile", profile.as_deref()),
        ("role-arn", role_arn.as_deref()),
        ("credentials-file", credentials_file.as_deref()),
    ];
    for (key, value) in pairs {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(key, value);
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn s3_locations() -> impl Strategy<Value = Location> {
        let text = "[a-zA-Z0-9 +%&=#?/:é☃_.@-]{1,20}";
        let segment = "[a-zA-Z0-9 +%&=#?:é☃_@~-][a-zA-Z0-9 +%&=#?:é☃_.@~-]{0,10}";
        let names = (
            "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
            prop::collection::vec(segment, 0..4),
            of(text),
            of("https?://[a-z]{1,10}(:[1-9][0-9]{1,3})?"),
            any::<bool>(),
        );
        let options = (
            of(prop::sample::select(&Checksum::ALL[..])),
            of(text),
            of(prop::sample::select(&Encryption::ALL[1..])),
            of(text),
            of(text),
            of(text),
        );
        (names, options).prop_map(
            |(
                (bucket, prefix, region, endpoint, path_style),
                (checksum, kms_key_id, server_side_encryption, profile, role, file),
            )| {
                Location::S3(S3Location {
                    bucket,
                    prefix: prefix.join("/"),
                    region,
                    endpoint,
                    path_style,
                    checksum,
                    kms_key_id,
                    server_side_encryption,
                    profile,
                    role_arn: role.map(|role| format!("arn:{role}")),
                    credentials_file: file.map(|file| PathBuf::from(format!("/{file}"))),
                    ca_bundle: None,
                })
            },
        )
    }

    #[cfg(unix)]
    fn file_locations() -> impl Strategy<Value = Location> {
        prop::collection::vec("[a-zA-Z0-9 +%&=#?:é☃_@~-][a-zA-Z0-9 +%&.é-]{0,10}", 0..5).prop_map(
            |segments| Location::File {
                dir: PathBuf::from(format!("/{}", segments.join("/"))),
            },
        )
    }

    proptest! {
        #[test]
        fn s3_location_survives_its_url(location in s3_locations()) {
            prop_assert_eq!(location.to_string().parse::<Location>(), Ok(location));
        }

        #[cfg(unix)]
        #[test]
        fn file_location_survives_its_url(location in file_locations()) {
            prop_assert_eq!(location.to_string().parse::<Location>(), Ok(location));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(s3|file)?:?/{0,3}\\PC{0,30}") {
            let _ = text.parse::<Location>();
        }
    }

    #[test]
    fn plain_url_means_what_it_says() {
        let url = "s3://bucket/a/b/?region=eu-west-1&endpoint=https%3A%2F%2Fs3.example.com&path-style=true";
        assert_eq!(
            url.parse(),
            Ok(Location::S3(S3Location {
                bucket: "bucket".to_owned(),
                prefix: "a/b".to_owned(),
                region: Some("eu-west-1".to_owned()),
                endpoint: Some("https://s3.example.com".to_owned()),
                path_style: true,
                ..S3Location::default()
            }))
        );
        // Unescaped, as people type it.
        assert_eq!(
            "s3://b/?endpoint=http://127.0.0.1:8333"
                .parse::<Location>()
                .unwrap()
                .to_string(),
            "s3://b?endpoint=http%3A%2F%2F127.0.0.1%3A8333"
        );
    }

    #[test]
    fn mistakes_are_named() {
        let part = |url: &str| url.parse::<Location>().unwrap_err().part;
        assert_eq!(part("backups"), "scheme");
        assert_eq!(part("gs://bucket"), "scheme");
        assert_eq!(part("s3:bucket"), "bucket");
        assert_eq!(part("s3:///prefix"), "bucket");
        assert_eq!(part("s3://user:secret@bucket"), "user");
        assert_eq!(part("s3://bucket:80"), "port");
        assert_eq!(part("s3://bucket/a//b"), "prefix");
        assert_eq!(part("s3://bucket/a?zone=1"), "zone");
        assert_eq!(part("s3://bucket/a?region="), "region");
        assert_eq!(part("s3://bucket/a?region=a&region=b"), "region");
        assert_eq!(part("s3://bucket/a?path-style=yes"), "path-style");
        assert_eq!(part("s3://bucket/a?checksum=never"), "checksum");
        assert_eq!(part("s3://bucket/a?sse=rot13"), "sse");
        assert_eq!(part("s3://bucket/a?endpoint=s3.example.com"), "endpoint");
        assert_eq!(part("s3://bucket/a?endpoint=https://u:p@h"), "endpoint");
        assert_eq!(part("s3://bucket/a?role-arn=me"), "role-arn");
        assert_eq!(
            part("s3://bucket/a?credentials-file=cloud"),
            "credentials-file"
        );
        assert_eq!(part("s3://bucket#a"), "fragment");
        assert_eq!(part("file:dir"), "path");
        assert_eq!(part("file://dir"), "path");
        assert_eq!(part("file:///dir?x=1"), "query");
        let secret = "s3://user:secret@bucket".parse::<Location>().unwrap_err();
        assert!(!secret.to_string().contains("secret"));
    }

    #[test]
    fn same_place_has_one_spelling() {
        let canonical = |url: &str| url.parse::<Location>().unwrap().canonical();
        assert_eq!(canonical("s3://b/p/"), "s3://aws/b/p");
        assert_eq!(
            canonical("s3://b/p?region=eu-west-1&profile=x"),
            canonical("s3://b/p?endpoint=https://s3.eu-west-1.amazonaws.com")
        );
        assert_eq!(
            canonical("s3://b?endpoint=https://S3.Example.com"),
            "s3://s3.example.com:443/b"
        );
        assert_eq!(canonical("s3://b?region=cn-north-1"), "s3://aws-cn/b");
        assert_ne!(
            canonical("s3://b?endpoint=http://h:1"),
            canonical("s3://b?endpoint=http://h:2")
        );
        assert_eq!(location_id("s3://aws/b").len(), 16);
    }

    #[cfg(unix)]
    #[test]
    fn canonical_directory_follows_links() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let canonical = |dir: PathBuf| Location::File { dir }.canonical();
        assert_eq!(
            canonical(link.join("new/sub")),
            canonical(real.join("new/sub"))
        );
    }
}
