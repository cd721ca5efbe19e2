//! The keys of a throw-away cluster: its certificate authority, the API server's certificate, the token signing key, and
//! what one API server needs to stand in front of another.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes `front-proxy-ca.crt`, `front-proxy.crt` and `front-proxy.key`: by these an API server that passes requests on
/// shows who it is to the aggregated one, which then believes it who the user is.
pub fn write_front_proxy(directory: &Path) -> Result<()> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "front proxy authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    fs::write(
        directory.join("front-proxy-ca.crt"),
        authority.self_signed(&authority_key)?.pem(),
    )?;
    let issuer = Issuer::new(authority, authority_key);
    let mut client = CertificateParams::default();
    client
        .distinguished_name
        .push(DnType::CommonName, "front-proxy");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let certificate = client.signed_by(&client_key, &issuer)?;
    fs::write(directory.join("front-proxy.crt"), certificate.pem())?;
    fs::write(
        directory.join("front-proxy.key"),
        client_key.serialize_pem(),
    )
    .context("writing the front proxy's key")
}

/// Writes `ca.crt`, `apiserver.crt`, `apiserver.key`, `client.crt`, `client.key`, `tokens.key` and `tokens.pub` into the
/// directory. The client is `certified`, in group system:masters.
///
/// The API server's certificate holds for every name by which something here reaches it.
pub fn write(directory: &Path) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "throw-away cluster");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    write("ca.crt", authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::new(authority, authority_key);

    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "127.0.0.1",
        "10.88.0.1",
        "10.96.0.1",
    ];
    let mut server = CertificateParams::new(names.map(String::from))?;
    server
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    let server_key = KeyPair::generate()?;
    write(
        "apiserver.crt",
        server.signed_by(&server_key, &issuer)?.pem(),
    )?;
    write("apiserver.key", server_key.serialize_pem())?;

    let mut client = CertificateParams::default();
    client
        .distinguished_name
        .push(DnType::CommonName, "certified");
    client
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    write("client.crt", client.signed_by(&client_key, &issuer)?.pem())?;
    write("client.key", client_key.serialize_pem())?;

    let token_key = KeyPair::generate()?;
    write("tokens.key", token_key.serialize_pem())?;
    write("tokens.pub", token_key.public_key_pem())
}
