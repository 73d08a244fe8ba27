//! `swtpm_setup`: the TPM that it makes, and what it leaves alone.

use super::*;

/// A configuration of swtpm_setup with an authority of its own below `dir`.
pub(super) fn authority(dir: &Path) -> String {
    let ca = dir.join("ca");
    fs::create_dir(&ca).unwrap();
    let (conf, options) = (dir.join("localca.conf"), dir.join("localca.options"));
    fs::write(
        &conf,
        format!(
            "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuercert.pem\ncertserial = {0}/certserial\n",
            ca.display()
        ),
    )
    .unwrap();
    fs::write(&options, "--platform-manufacturer Test\n--platform-version 1\n--platform-model vtpmd\n")
        .unwrap();
    let config = dir.join("swtpm_setup.conf");
    fs::write(
        &config,
        format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n\
             active_pcr_banks = sha256\n",
            conf.display(),
            options.display()
        ),
    )
    .unwrap();
    config.display().to_string()
}

#[test]
fn a_tpm_made_as_libvirt_makes_it_is_like_debians_and_its_certificates_verify() {
    if !debian(&["swtpm", "swtpm_setup", "swtpm_localca", "tpm2_getcap", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = authority(dir.path());
    let look = |setup: &str, swtpm: &str, name: &str| -> Vec<String> {
        let own = dir.path().join(name);
        fs::create_dir_all(own.join("state")).unwrap();
        let state = own.join("state").display().to_string();
        let log = own.join("log").display().to_string();
        said(
            setup,
            &[
                "--tpm2",
                "--tpm-state",
                &state,
                "--vmid",
                "vm:3b0e",
                "--logfile",
                &log,
                "--createek",
                "--create-ek-cert",
                "--create-platform-cert",
                "--lock-nvram",
                "--not-overwrite",
                "--config",
                &config,
                "--write-ek-cert-files",
                own.to_str().unwrap(),
            ],
        );
        assert!(fs::read_to_string(&log).unwrap().contains("Successfully authored TPM state."));
        let server = Server::start(swtpm, &state, &own, &["--flags", "not-need-init,startup-clear"]);
        let mut seen =
            vec![server.tool_said("tpm2_getcap handles-persistent"), server.tool_said("tpm2_getcap pcrs")];
        for key in ["0x81010001", "0x81010016"] {
            let public = server.tool_said(&format!("tpm2_readpublic -c {key}"));
            let own = ["name:", "qualified name:", "rsa:", "x:", "y:"];
            seen.extend(public.lines().filter(|l| !own.iter().any(|o| l.starts_with(o))).map(str::to_owned));
        }
        seen.push(server.tool_said("tpm2_getcap handles-nv-index"));
        for (index, file) in [
            ("0x1c00002", Some("ek-rsa2048.crt")),
            ("0x1c00016", Some("ek-secp384r1.crt")),
            ("0x1c08000", None),
        ] {
            let public = server.tool_said(&format!("tpm2_nvreadpublic {index}"));
            seen.extend(
                public.lines().filter(|l| !l.contains("name:") && !l.contains("size:")).map(str::to_owned),
            );
            server.tool_said(&format!("tpm2_nvread {index} -o cert"));
            if let Some(file) = file {
                assert_eq!(fs::read(own.join(file)).unwrap(), fs::read(own.join("cert")).unwrap());
            }
            server.tool_said("openssl x509 -inform der -in cert -out cert.pem");
            let ca = |file: &str| fs::read_to_string(dir.path().join("ca").join(file)).unwrap();
            fs::write(own.join("ca.pem"), ca("issuercert.pem") + &ca("swtpm-localca-rootca-cert.pem"))
                .unwrap();
            seen.push(server.tool_said("openssl verify -ignore_critical -CAfile ca.pem cert.pem"));
            let key = server.tool_said("openssl x509 -in cert.pem -noout -ext keyUsage,extendedKeyUsage");
            seen.push(key);
            let locked = server.tool(&format!("tpm2_nvwrite {index} -C p -i cert"));
            assert!(!locked.status.success(), "{index} is locked");
        }
        // The certificate is about the key that is there.
        server.tool_said("tpm2_readpublic -c 0x81010001 -f pem -o ek.pem");
        server.tool_said("openssl x509 -inform der -in ek-rsa2048.crt -out rsa.pem");
        let certified = server.tool_said("openssl x509 -in rsa.pem -noout -pubkey");
        assert_eq!(certified, fs::read_to_string(own.join("ek.pem")).unwrap());
        server.shut_down();
        seen
    };
    let ours = look(SETUP, SWTPM, "ours");
    assert_eq!(ours, look("/usr/bin/swtpm_setup", "/usr/bin/swtpm", "theirs"));
    assert_eq!(ours.iter().filter(|line| line.contains("cert.pem: OK")).count(), 3);
}

#[test]
fn a_tpm_that_is_there_is_not_made_anew_unless_that_is_asked_for() {
    let (dir, state) = place();
    let config = dir.path().join("conf").display().to_string();
    fs::write(&config, "active_pcr_banks = sha384\n").unwrap();
    let line = ["--tpm2", "--tpm-state", &state, "--config", &config];
    let again = |more: &[&str]| -> Vec<String> { line.iter().chain(more).map(|&s| s.to_owned()).collect() };
    let run = |more: &[&str]| call(SETUP, &again(more).iter().map(String::as_str).collect::<Vec<_>>());
    let database = Path::new(&state).join("vtpmd.sqlite");
    assert!(!run(&["--reconfigure"]).status.success(), "there is none yet");
    assert!(text(&run(&[]).stdout).contains("banks sha384 among sha1,sha256,sha384,sha512"));
    let made = fs::metadata(&database).unwrap().ino();
    assert!(text(&run(&[]).stderr).contains("--overwrite"));
    assert!(run(&["--not-overwrite"]).status.success());
    let banks = run(&["--reconfigure", "--pcr-banks", "sha1,sha256"]);
    assert!(text(&banks.stdout).contains("banks sha1,sha256 among"), "{}", text(&banks.stderr));
    assert!(!run(&["--reconfigure", "--pcr-banks", "md5"]).status.success());
    assert_eq!(fs::metadata(&database).unwrap().ino(), made);
    assert!(run(&["--overwrite"]).status.success());
    assert!(fs::metadata(&database).unwrap().ino() != made || run(&[]).status.code() == Some(1));

    // What Debian's swtpm keeps there is not hidden behind a new TPM.
    let (other, state) = place();
    fs::write(Path::new(&state).join("tpm2-00.permall"), "theirs").unwrap();
    assert!(
        refused(SETUP, &["--tpm2", "--tpm-state", &state, "--overwrite", "--config", &config])
            .contains("import-swtpm")
    );
    let channel = format!("type=unixio,path={}", other.path().join("c").display());
    let served =
        refused(SWTPM, &["socket", "--tpm2", "--tpmstate", &format!("dir={state}"), "--ctrl", &channel]);
    assert!(served.contains("import-swtpm"));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
}

#[test]
fn a_failed_certificate_leaves_no_half_made_tpm() {
    let (dir, state) = place();
    let config = dir.path().join("conf").display().to_string();
    fs::write(&config, "create_certs_tool = /bin/false\n").unwrap();
    let error = refused(SETUP, &["--tpm2", "--tpm-state", &state, "--config", &config, "--create-ek-cert"]);
    assert!(error.contains("/bin/false ended with exit status: 1"), "{error}");
    assert!(!Path::new(&state).join("vtpmd.sqlite").exists());
}
