//! `TPM2_GetCapability` (Part 3, 30.2).

use super::{algorithms, handles, page, properties};
use crate::command::{Context, Output, parameters, table};
use crate::execute::is_act_handle;
use crate::pcr;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    ECC_CURVES, MAX_CAP_BUFFER, TpmAlgId, TpmCap, TpmCc, TpmEccCurve, TpmHandle, TpmHt, TpmPt, TpmPtPcr,
    Tpml, TpmsCapabilityData, TpmsTaggedPcrSelect,
};

/// What is left of the buffer for the entries of a list, after the capability and the count.
const ROOM: usize = MAX_CAP_BUFFER - 8;
/// The last property of PCRs.
const LAST_PCR_PROPERTY: TpmPtPcr = TpmPtPcr::AUTH;

/// Tells what there is: algorithms, handles, commands, properties and so on, from `property` on and at most as many as asked for and as
/// fit the buffer; and whether there is more.
///
/// # Errors
/// `TPM_RC_VALUE` with number 1 for an unknown capability; `TPM_RC_HANDLE` or `TPM_RC_VALUE` with number 2 for a property that does not fit it.
pub fn get_capability(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (Known(capability), property, count): (Known, u32, u32) = parameters(r)?;
    let (data, more) = data(cx, capability, property, count)?;
    Ok(Output::of(&(more, data)))
}

/// A capability that there is, as a parameter. `TPM_CAP_PUB_KEYS` and `TPM_CAP_SPDM_SESSION_INFO` are of secure channels, of which this TPM
/// has none; a TPM that is built without them does not know these values of `TPM_CAP`, nor does libtpms.
struct Known(TpmCap);

impl Decode for Known {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match TpmCap::decode(r)? {
            capability if capability <= TpmCap::ACT || capability == TpmCap::VENDOR_PROPERTY => {
                Ok(Self(capability))
            }
            _ => Err(ResponseCode::VALUE),
        }
    }
}

fn data(
    cx: &mut Context<'_>,
    capability: TpmCap,
    property: u32,
    count: u32,
) -> Result<(TpmsCapabilityData, bool), ResponseCode> {
    let wrong_property = |rc: ResponseCode| rc.parameter(2);
    // As many entries of `size` bytes as are asked for and fit.
    let limit =
        |size: usize| usize::try_from(count).unwrap_or(usize::MAX).min(ROOM.checked_div(size).unwrap_or(0));
    let first = TpmHandle(property);
    Ok(match capability {
        TpmCap::ALGS => {
            // A number that no algorithm has, as the property is wider than their ids.
            let first = TpmAlgId(u16::try_from(property).unwrap_or(u16::MAX));
            let (list, more) = page(algorithms::implemented(), |a| a.alg, first, limit(6));
            (TpmsCapabilityData::Algs(list), more)
        }
        TpmCap::HANDLES => {
            let (list, more) = handles::handles(cx.state, first, limit(4)).map_err(wrong_property)?;
            (TpmsCapabilityData::Handles(list), more)
        }
        TpmCap::COMMANDS => {
            let has_instances = cx.env.instances().is_some();
            let all = table::COMMANDS.iter().filter(|c| has_instances || !table::is_vendor(c.code));
            let (list, more) = page(all, |c| c.code, TpmCc(property), limit(4));
            (TpmsCapabilityData::Commands(list.into_iter().map(table::attributes).collect()), more)
        }
        TpmCap::PP_COMMANDS => {
            let all = cx.state.permanent.pp_commands.0.iter().copied();
            let (list, more) = page(all, |c| *c, TpmCc(property), limit(4));
            (TpmsCapabilityData::PpCommands(list), more)
        }
        TpmCap::AUDIT_COMMANDS => {
            let all = cx.state.permanent.command_audit.commands.0.iter().copied();
            let (list, more) = page(all, |c| *c, TpmCc(property), limit(4));
            (TpmsCapabilityData::AuditCommands(list), more)
        }
        TpmCap::PCRS => {
            if property != 0 {
                return Err(wrong_property(ResponseCode::VALUE));
            }
            // The allocation is one answer; nothing of it is left out unless nothing is asked for.
            let list = if count == 0 { Tpml::default() } else { cx.state.volatile.pcrs.allocation() };
            (TpmsCapabilityData::Pcrs(list), count == 0)
        }
        TpmCap::TPM_PROPERTIES => {
            let has_instances = cx.env.instances().is_some();
            let (list, more) =
                properties::properties(cx.state, &cx.env.limits(), has_instances, TpmPt(property), limit(8));
            (TpmsCapabilityData::TpmProperties(list), more)
        }
        TpmCap::PCR_PROPERTIES => {
            let all = (0..=LAST_PCR_PROPERTY.0).map(TpmPtPcr).filter_map(|tag| {
                pcr::with_property(tag).map(|s| TpmsTaggedPcrSelect { tag, select: s.select })
            });
            let (list, more) = page(all, |p| p.tag, TpmPtPcr(property), limit(8));
            (TpmsCapabilityData::PcrProperties(list), more)
        }
        TpmCap::ECC_CURVES => {
            let first = TpmEccCurve(u16::try_from(property).unwrap_or(u16::MAX));
            let (list, more) = page(ECC_CURVES, |c| *c, first, limit(2));
            (TpmsCapabilityData::EccCurves(list), more)
        }
        TpmCap::AUTH_POLICIES => {
            let (list, more) = handles::policies(cx.state, first, limit(70)).map_err(wrong_property)?;
            (TpmsCapabilityData::AuthPolicies(list), more)
        }
        TpmCap::ACT if is_act_handle(first) => {
            let (list, more) = page([cx.state.act_data(cx.now)], |act| act.handle, first, limit(12));
            (TpmsCapabilityData::Act(list), more)
        }
        TpmCap::ACT => return Err(wrong_property(ResponseCode::VALUE)),
        _ => return Err(ResponseCode::VALUE.parameter(1)),
    })
}

/// What there is to tell of one property, without what stands before it in the list of its capability; `None` when there is no such property.
/// The capability is parameter `n` of the command and the property the next.
///
/// # Errors
/// `TPM_RC_VALUE` with number `n` for a capability whose data are no list by property; else as [`get_capability`].
pub fn property_data(
    cx: &mut Context<'_>,
    capability: TpmCap,
    property: u32,
    n: u32,
) -> Result<Option<Vec<u8>>, ResponseCode> {
    fn entry<T: Encode>(list: &[T], is_it: impl Fn(&T) -> bool) -> Option<Vec<u8>> {
        list.first().filter(|entry| is_it(entry)).map(Encode::to_bytes)
    }
    let unknown = ResponseCode::VALUE.parameter(n);
    if capability == TpmCap::PCRS {
        return Err(unknown);
    }
    let handle = TpmHandle(property);
    let (data, _) = data(cx, capability, property, 1).map_err(|e| {
        if e == ResponseCode::VALUE.parameter(1) { unknown } else { e.base().parameter(n.saturating_add(1)) }
    })?;
    Ok(match data {
        TpmsCapabilityData::Algs(l) => entry(&l, |a| u32::from(a.alg.0) == property),
        // A list of sessions says of which type they are, where the property says loaded or saved.
        TpmsCapabilityData::Handles(l)
            if matches!(handle.handle_type(), TpmHt::HMAC_SESSION | TpmHt::POLICY_SESSION) =>
        {
            l.first().filter(|h| h.index() == handle.index()).map(|_| property.to_bytes())
        }
        TpmsCapabilityData::Handles(l) => entry(&l, |h| *h == handle),
        TpmsCapabilityData::Commands(l) => {
            let found = table::find(TpmCc(property)).map(table::attributes);
            entry(&l, |attributes| found == Some(*attributes))
        }
        TpmsCapabilityData::PpCommands(l) | TpmsCapabilityData::AuditCommands(l) => {
            entry(&l, |code| code.0 == property)
        }
        TpmsCapabilityData::TpmProperties(l) => entry(&l, |p| p.property.0 == property),
        TpmsCapabilityData::PcrProperties(l) => entry(&l, |p| p.tag.0 == property),
        TpmsCapabilityData::EccCurves(l) => entry(&l, |c| u32::from(c.0) == property),
        TpmsCapabilityData::AuthPolicies(l) => entry(&l, |p| p.handle == handle),
        TpmsCapabilityData::Act(l) => entry(&l, |act| act.handle == handle),
        TpmsCapabilityData::Pcrs(_) => None,
    })
}

#[cfg(test)]
mod tests;
