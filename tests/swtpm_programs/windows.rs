//! What Microsoft documents Windows to do with a TPM 2.0 (provisioning, attestation of a health service, BitLocker with TPM and PIN, dictionary
//! attack settings), step by step with tpm2-tools, on our TPM and on that of Debian's swtpm. It is no Windows, which has not been run.

use super::*;

/// Steps in which `{NAME}` is the Name of the attestation key. A line that is to fail on both begins with `!`.
const STEPS: &[&str] = &[
    "tpm2_selftest --fulltest",
    "tpm2_gettestresult",
    "tpm2_stirrandom stir",
    // Storage root key and endorsement key at the handles where Windows looks for them, the latter with the usual template.
    "tpm2_createprimary -Q -C o -g sha256 -G rsa2048:null:aes128cfb -c srk -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt",
    "tpm2_evictcontrol -C o -c srk 0x81000001",
    "tpm2_createek -G rsa -c ek -u ek.pub",
    "tpm2_evictcontrol -C o -c ek 0x81010001",
    "tpm2_getcap handles-persistent",
    "tpm2_readpublic -Q -c 0x81000001 -o srk.pub",
    // An attestation key, its credential, a quote over what BitLocker and the health service look at.
    "tpm2_createak -Q -C 0x81010001 -c ak -G rsa -g sha256 -s rsassa -u ak.pub -n ak.name",
    "tpm2_makecredential -u ek.pub -s secret -n {NAME} -o credential",
    "tpm2_startauthsession --policy-session -S session",
    "tpm2_policysecret -Q -S session -c e",
    "tpm2_activatecredential -c ak -C 0x81010001 -i credential -o opened -P session:session",
    "tpm2_flushcontext session",
    "tpm2_quote -Q -c ak -l sha256:0,1,2,3,4,7,11 -q 00112233 -m message -s signature -o values -g sha256",
    "tpm2_checkquote -Q -u ak.pub -m message -s signature -f values -g sha256 -q 00112233",
    "!tpm2_checkquote -Q -u ak.pub -m message -s signature -f values -g sha256 -q 00112234",
    "tpm2_certify -c 0x81000001 -C ak -g sha256 -o certified -s certificate",
    // A volume key for PCR 7 and 11 and a PIN, under the storage root key.
    "tpm2_startauthsession -S session",
    "tpm2_policypcr -Q -S session -l sha256:7,11",
    "tpm2_policyauthvalue -Q -S session -L policy",
    "tpm2_flushcontext session",
    "tpm2_create -Q -C 0x81000001 -L policy -p pin -i secret -u sealed.pub -r sealed -a fixedtpm|fixedparent",
    "tpm2_load -Q -C 0x81000001 -u sealed.pub -r sealed -c volume",
    "tpm2_startauthsession --policy-session -S session",
    "tpm2_policypcr -Q -S session -l sha256:7,11",
    "tpm2_policyauthvalue -Q -S session",
    "tpm2_unseal -c volume -p session:session+pin",
    "tpm2_flushcontext session",
    "tpm2_startauthsession --policy-session -S session",
    "tpm2_policypcr -Q -S session -l sha256:7,11",
    "tpm2_policyauthvalue -Q -S session",
    "!tpm2_unseal -c volume -p session:session+wrong",
    "tpm2_flushcontext session",
    // What the boot manager caps when the volume is open.
    "tpm2_pcrextend 11:sha256=0000000000000000000000000000000000000000000000000000000000000001",
    "tpm2_startauthsession --policy-session -S session",
    "tpm2_policypcr -Q -S session -l sha256:7,11",
    "tpm2_policyauthvalue -Q -S session",
    "!tpm2_unseal -c volume -p session:session+pin",
    "tpm2_flushcontext session",
    "tpm2_pcrread sha256:7,11",
    // Owner and lockout authorization, the settings against guessing, and Clear switched off.
    "tpm2_changeauth -c lockout lockoutpassword",
    "tpm2_dictionarylockout -s -n 32 -t 600 -l 86400 -p lockoutpassword",
    "tpm2_dictionarylockout -c -p lockoutpassword",
    "tpm2_getcap properties-variable",
    "tpm2_clearcontrol -C l s -P lockoutpassword",
    "!tpm2_clear -c l lockoutpassword",
    "tpm2_clearcontrol -C p c",
    "tpm2_changeauth -c owner ownerpassword",
    "!tpm2_nvdefine 0x1500016 -C o -s 8 -a ownerread|ownerwrite",
    "tpm2_nvdefine 0x1500016 -C o -s 8 -a ownerread|ownerwrite|authread|authwrite|no_da -P ownerpassword",
    "tpm2_nvwrite 0x1500016 -C 0x1500016 -i eight",
    "tpm2_nvread 0x1500016 -C 0x1500016",
    "tpm2_nvreadpublic 0x1500016",
    "tpm2_nvundefine 0x1500016 -C o -P ownerpassword",
    // A software key under the storage root key, and one for an elliptic curve.
    "tpm2_create -Q -C 0x81000001 -G rsa2048:rsapss-sha256:null -u soft.pub -r soft.priv -p usage",
    "tpm2_load -Q -C 0x81000001 -u soft.pub -r soft.priv -c soft",
    "tpm2_sign -Q -c soft -p usage -g sha256 -s rsapss -o signed eight",
    "tpm2_verifysignature -Q -c soft -g sha256 -m eight -s signed",
    "tpm2_create -Q -C 0x81000001 -G ecc256:ecdsa-sha256:null -u curve.pub -r curve.priv",
    "tpm2_load -Q -C 0x81000001 -u curve.pub -r curve.priv -c curve",
    "tpm2_sign -Q -c curve -g sha256 -o signed eight",
    "tpm2_verifysignature -Q -c curve -g sha256 -m eight -s signed",
    "tpm2_clear -c l lockoutpassword",
    "tpm2_getcap handles-persistent",
    "!tpm2_readpublic -Q -c 0x81000001",
];

/// What Windows 11 asks of a TPM before it is installed: its family, and PCRs of SHA-256.
fn is_what_windows_asks_for(server: &Server) {
    let fixed = server.tool_said("tpm2_getcap properties-fixed");
    assert!(fixed.contains("TPM2_PT_FAMILY_INDICATOR:") && fixed.contains("2.0"), "{fixed}");
    let banks = server.tool_said("tpm2_getcap pcrs");
    let all =
        "- sha256: [ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23 ]";
    assert!(banks.contains(all), "{banks}");
    let algorithms = server.tool_said("tpm2_getcap algorithms");
    for algorithm in
        ["rsa:", "sha256:", "hmac:", "aes:", "cfb:", "rsassa:", "rsapss:", "oaep:", "ecc:", "ecdsa:"]
    {
        assert!(algorithms.lines().any(|line| line == algorithm), "{algorithm}");
    }
    assert!(server.tool_said("tpm2_getcap ecc-curves").contains("TPM2_ECC_NIST_P256: 0x3"));
}

/// The status, what is said that is the same for every TPM, and the response code of a step.
fn take(server: &Server, step: &str) -> (Option<i32>, String, String) {
    let name = fs::read(server.dir.join("ak.name")).unwrap_or_default();
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = step.trim_start_matches('!').replace("{NAME}", &name);
    let output = server.tool(&line);
    // In the place of a resource manager.
    server.tool_said("tpm2_flushcontext -t");
    let fails = step.starts_with('!');
    assert_eq!(!output.status.success(), fails, "{line}: {}", text(&output.stderr));
    // Of an error the code that the TPM gave it.
    let errors = text(&output.stderr);
    let codes: Vec<_> =
        errors.lines().filter_map(|line| line.split("(0x").nth(1)).map(str::to_owned).collect();
    // How much room there is, and how many curves, is each TPM's own.
    let own = ["_AVAIL:", "TPM2_PT_LOADED_CURVES"];
    let said = text(&output.stdout);
    let said: Vec<_> = said.lines().filter(|line| !own.iter().any(|own| line.contains(own))).collect();
    (output.status.code(), said.join("\n"), codes.join(" "))
}

#[test]
fn what_windows_is_documented_to_do_goes_as_with_debians_swtpm() {
    if !debian(&["swtpm", "tpm2_createek", "tpm2_checkquote", "tpm2_certify"]) {
        return;
    }
    let run = |program: &str| -> Vec<_> {
        let (dir, state) = place();
        for (name, content) in
            [("stir", "some entropy"), ("secret", "a key of a volume"), ("eight", "12345678")]
        {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let server = Server::start(program, &state, dir.path(), &["--flags", "not-need-init,startup-clear"]);
        is_what_windows_asks_for(&server);
        let seen = STEPS.iter().map(|step| (*step, take(&server, step))).collect();
        assert_eq!(fs::read(dir.path().join("opened")).unwrap(), b"a key of a volume");
        server.shut_down();
        seen
    };
    let (ours, theirs) = (run(SWTPM), run(DEBIANS));
    for (here, there) in ours.iter().zip(&theirs) {
        assert_eq!(here, there);
    }
}
