/*
 * A TPM 2.0 whose back-end is a vhost-user process
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_VHOST_USER_TPM_H
#define HW_VIRTIO_VHOST_USER_TPM_H

#include "chardev/char-fe.h"
#include "hw/resettable.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/vhost-user.h"
#include "hw/virtio/virtio.h"
#include "qom/object.h"
#include "system/runstate.h"

/* Not in the kernel headers of the supported QEMU trees. */
#ifndef VIRTIO_ID_TPM
#define VIRTIO_ID_TPM 62
#endif

#define TYPE_VHOST_USER_TPM "vhost-user-tpm-device"
OBJECT_DECLARE_SIMPLE_TYPE(VHostUserTPM, VHOST_USER_TPM)

#define TYPE_VHOST_USER_TPM_POWER "vhost-user-tpm-power"
OBJECT_DECLARE_SIMPLE_TYPE(VHostUserTPMPower, VHOST_USER_TPM_POWER)

/*
 * What differs between QEMU releases is taken from the declarations
 * themselves, so that a patched tree is judged by what it has and not by its
 * version number.
 */

/* CharBackend up to 10.1, CharFrontend from 10.2 on. */
typedef typeof(*((VhostUserState *)NULL)->chr) VHostUserTPMChardev;

/* The second argument of class_init became const in 10.1. */
typedef typeof(_Generic(((TypeInfo *)NULL)->class_init,
                        void (*)(ObjectClass *, void *): (void *)NULL,
                        void (*)(ObjectClass *, const void *):
                            (const void *)NULL)) VHostUserTPMClassData;

/*
 * The configuration space of the back-end. It is a private channel between
 * QEMU and the back-end, with fields in little endian; the guest sees a device
 * without configuration space.
 */
typedef struct QEMU_PACKED VHostUserTPMHostConfig {
    uint32_t version;           /* read-only: VHOST_USER_TPM_HOST_VERSION */
    uint32_t max_command_size;  /* read-only: longest command, in bytes */
    uint32_t machine_reset;     /* doorbell: any value means _TPM_Init */
    uint32_t run_state;         /* doorbell: 1 running, 0 stopped */
} VHostUserTPMHostConfig;

#define VHOST_USER_TPM_HOST_VERSION 1

/*
 * The connection to the back-end:
 *
 *      DOWN --(opened, handshake held)--> UP --(closed)--> LOST --(bh)--> DOWN
 *
 * A close may be noticed deep inside vhost code that goes on to use the
 * vhost_dev. So it only marks the link LOST, and a bottom half takes the
 * vhost_dev apart; until then nothing is started on it any more.
 */
typedef enum VHostUserTPMLink {
    VHOST_USER_TPM_LINK_DOWN,
    VHOST_USER_TPM_LINK_UP,
    VHOST_USER_TPM_LINK_LOST,
} VHostUserTPMLink;

struct VHostUserTPM {
    VirtIODevice parent_obj;

    /* properties */
    VHostUserTPMChardev chardev;
    uint16_t queue_size;

    VhostUserState vhost_user;
    struct vhost_dev dev;
    struct vhost_virtqueue *vhost_vqs;
    VirtQueue *request_vq;

    VHostUserTPMLink link;
    QEMUBH *lost_bh;
    /* The ring is in the hands of the back-end, or was until it died. */
    bool ring_started;
    /* What the guest was offered; a back-end that comes back offers no less. */
    uint64_t offered_features;

    VHostUserTPMPower *power;
    /* A _TPM_Init that the back-end has not acknowledged yet. */
    bool reset_pending;
    VMChangeStateEntry *vm_change_state;
    bool vm_running;

    Error *no_device_state;
};

/*
 * Sits in the machine's reset tree beside the device, because the device
 * itself is also reset when the guest asks for a function-level reset, and
 * a guest must not be able to clear its PCRs without a reset of the machine.
 */
struct VHostUserTPMPower {
    Object parent_obj;

    ResettableState reset_state;
    VHostUserTPM *tpm;
};

#endif /* HW_VIRTIO_VHOST_USER_TPM_H */
