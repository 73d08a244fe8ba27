/*
 * A TPM 2.0 whose back-end is a vhost-user process
 *
 * The data path is virtio-tpm: one request queue, served by the back-end
 * alone. Beside it QEMU tells the back-end, over the vhost-user configuration
 * messages, of machine resets and of the run state, and carries the state of
 * the TPM in the migration stream. The back-end may come and go at any time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/main-loop.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "hw/virtio/vhost-user-tpm.h"
#include "hw/virtio/virtio-bus.h"
#include "migration/blocker.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "system/reset.h"
#include "system/runstate.h"

#define REQUEST_QUEUES 1

/*
 * The features that depend on the back-end. What it offers for its own talk
 * with QEMU, dirty logging (bit 26) and the protocol features (bit 30), is not
 * here and so never reaches the guest.
 */
static const int backend_feature_bits[] = {
    VIRTIO_F_VERSION_1,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_NOTIFY_ON_EMPTY,
    VIRTIO_F_RING_PACKED,
    VIRTIO_F_IOMMU_PLATFORM,
    VIRTIO_F_RING_RESET,
    VIRTIO_F_IN_ORDER,
    VIRTIO_F_NOTIFICATION_DATA,
    VHOST_INVALID_FEATURE_BIT
};

/* Doorbells: what QEMU tells the back-end */

static int ring_doorbell(VHostUserTPM *s, uint32_t offset, uint32_t value,
                         Error **errp)
{
    uint32_t le_value = cpu_to_le32(value);
    int ret;

    ret = vhost_dev_set_config(&s->dev, (const uint8_t *)&le_value, offset,
                               sizeof(le_value),
                               VHOST_SET_CONFIG_TYPE_FRONTEND);
    if (ret) {
        ret = ret < 0 ? ret : -EIO;
        error_setg_errno(errp, -ret, "the back-end did not take doorbell %u",
                         offset);
    }
    return ret;
}

static int deliver_reset(VHostUserTPM *s, Error **errp)
{
    int ret = 0;

    if (s->reset_pending) {
        ret = ring_doorbell(s, offsetof(VHostUserTPMHostConfig, machine_reset),
                            1, errp);
        s->reset_pending = ret < 0;
    }
    return ret;
}

static int deliver_run_state(VHostUserTPM *s, Error **errp)
{
    return ring_doorbell(s, offsetof(VHostUserTPMHostConfig, run_state),
                         s->vm_running, errp);
}

/*
 * A back-end that misses a doorbell works from a false idea of its machine: it
 * could keep PCRs across a reset. Cut it off; the next handshake starts with
 * everything it has to know.
 */
static void doorbell_failed(VHostUserTPM *s, Error *err)
{
    error_reportf_err(err, "vhost-user-tpm: disconnecting: ");
    qemu_chr_fe_disconnect(&s->chardev);
}

static void vhost_user_tpm_vm_change_state(void *opaque, bool running,
                                           RunState state)
{
    VHostUserTPM *s = opaque;
    Error *err = NULL;

    /*
     * Registered with the lowest priority, so that the back-end hears of a
     * start before its ring is started and of a stop after it was stopped.
     */
    s->vm_running = running;
    if (s->link == VHOST_USER_TPM_LINK_UP && deliver_run_state(s, &err) < 0) {
        doorbell_failed(s, err);
    }
}

/* Machine reset */

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(VHostUserTPMPower,
                                          vhost_user_tpm_power,
                                          VHOST_USER_TPM_POWER, OBJECT,
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static void vhost_user_tpm_power_init(Object *obj)
{
}

static void vhost_user_tpm_power_finalize(Object *obj)
{
}

static ResettableState *vhost_user_tpm_power_get_state(Object *obj)
{
    return &VHOST_USER_TPM_POWER(obj)->reset_state;
}

/*
 * In the exit phase the virtio device has been reset already: no command of
 * the old boot can reach the back-end after this.
 */
static void vhost_user_tpm_power_exit(Object *obj, ResetType type)
{
    VHostUserTPM *s = VHOST_USER_TPM_POWER(obj)->tpm;
    Error *err = NULL;

    /*
     * A snapshot brings its own TPM state, and a machine that wakes up from
     * suspend to RAM kept its TPM powered: no firmware would start it again.
     */
    if (type == RESET_TYPE_SNAPSHOT_LOAD || type == RESET_TYPE_WAKEUP) {
        return;
    }
    /* The state that is about to come in was made after its last reset. */
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return;
    }

    s->reset_pending = true;
    if (s->link == VHOST_USER_TPM_LINK_UP && deliver_reset(s, &err) < 0) {
        doorbell_failed(s, err);
    }
}

static void vhost_user_tpm_power_class_init(ObjectClass *klass,
                                            VHostUserTPMClassData data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = vhost_user_tpm_power_get_state;
    rc->phases.exit = vhost_user_tpm_power_exit;
}

/* The ring: handing it to the back-end and taking it back */

static int start_ring(VHostUserTPM *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);
    int ret;

    if (!k->set_guest_notifiers) {
        error_setg(errp, "the bus has no guest notifiers");
        return -ENOSYS;
    }

    ret = vhost_dev_enable_notifiers(&s->dev, vdev);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not enable host notifiers");
        return ret;
    }

    ret = k->set_guest_notifiers(qbus->parent, REQUEST_QUEUES, true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not bind guest notifiers");
        goto fail_host_notifiers;
    }

    s->dev.acked_features = vdev->guest_features;
    s->dev.vq_index_end = REQUEST_QUEUES;

    /* There is no guest_notifier_mask; the transport masks by itself. */
    vhost_virtqueue_mask(&s->dev, vdev, 0, false);

    ret = vhost_dev_start(&s->dev, vdev, true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "could not start the ring");
        goto fail_guest_notifiers;
    }
    s->ring_started = true;

    /*
     * Commands may already wait: sent while no back-end was there, or taken
     * by one that died over them. Their kick is gone.
     */
    if (virtio_queue_get_desc_addr(vdev, 0)) {
        event_notifier_set(virtio_queue_get_host_notifier(s->request_vq));
    }
    return 0;

fail_guest_notifiers:
    k->set_guest_notifiers(qbus->parent, REQUEST_QUEUES, false);
fail_host_notifiers:
    vhost_dev_disable_notifiers(&s->dev, vdev);
    return ret;
}

static void stop_ring(VHostUserTPM *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);
    int ret;

    s->ring_started = false;

    /*
     * When the back-end is gone this takes the used index as the position to
     * go on from, so that an unanswered command is offered to the next one.
     */
    vhost_dev_stop(&s->dev, vdev, true);

    ret = k->set_guest_notifiers(qbus->parent, REQUEST_QUEUES, false);
    if (ret < 0) {
        error_report("vhost-user-tpm: could not release guest notifiers: %s",
                     strerror(-ret));
    }
    vhost_dev_disable_notifiers(&s->dev, vdev);
}

static int apply_status(VirtIODevice *vdev, uint8_t status)
{
    VHostUserTPM *s = VHOST_USER_TPM(vdev);
    bool should_start = virtio_device_should_start(vdev, status);
    Error *err = NULL;
    int ret;

    if (should_start == s->ring_started) {
        return 0;
    }

    if (!should_start) {
        /* Also on a lost link: virtio is about to forget the addresses. */
        stop_ring(s);
        return s->link == VHOST_USER_TPM_LINK_UP ? 0 : -EIO;
    }

    if (s->link != VHOST_USER_TPM_LINK_UP) {
        /* The guest's commands wait in the ring for the next handshake. */
        return 0;
    }

    ret = start_ring(s, &err);
    if (ret < 0) {
        error_reportf_err(err, "vhost-user-tpm: ");
        qemu_chr_fe_disconnect(&s->chardev);
    }
    return ret;
}

/* What set_status returns changed in 10.1; class_init takes what fits. */
static int vhost_user_tpm_set_status(VirtIODevice *vdev, uint8_t status)
{
    return apply_status(vdev, status);
}

static void vhost_user_tpm_set_status_void(VirtIODevice *vdev, uint8_t status)
{
    apply_status(vdev, status);
}

static void vhost_user_tpm_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    /* A kick that no back-end is there to take; start_ring() repeats it. */
}

static uint64_t vhost_user_tpm_get_features(VirtIODevice *vdev,
                                            uint64_t features, Error **errp)
{
    VHostUserTPM *s = VHOST_USER_TPM(vdev);

    s->offered_features = vhost_get_features(&s->dev, backend_feature_bits,
                                             features);
    return s->offered_features;
}

static struct vhost_dev *vhost_user_tpm_get_vhost(VirtIODevice *vdev)
{
    return &VHOST_USER_TPM(vdev)->dev;
}

/* The connection */

static int check_backend(VHostUserTPM *s, Error **errp)
{
    VHostUserTPMHostConfig config = { 0 };
    uint64_t missing;
    int ret;

    if (!virtio_has_feature(s->dev.features, VIRTIO_F_VERSION_1)) {
        error_setg(errp, "the back-end does not offer VIRTIO_F_VERSION_1");
        return -EPROTO;
    }

    missing = s->offered_features &
              ~vhost_get_features(&s->dev, backend_feature_bits,
                                  s->offered_features);
    if (missing) {
        error_setg(errp, "the back-end came back without the features 0x%"
                   PRIx64, missing);
        return -EPROTO;
    }

    ret = vhost_dev_get_config(&s->dev, (uint8_t *)&config, sizeof(config),
                               errp);
    if (ret < 0) {
        return ret;
    }
    if (le32_to_cpu(config.version) != VHOST_USER_TPM_HOST_VERSION) {
        error_setg(errp, "the back-end speaks version %u of the host-only "
                   "configuration, this QEMU version %u",
                   le32_to_cpu(config.version), VHOST_USER_TPM_HOST_VERSION);
        return -EPROTO;
    }

    /*
     * Say now that the machine cannot migrate, not when its guest has been
     * stopped for the migration already.
     */
    if (s->dev.vhost_ops && vhost_supports_device_state(&s->dev)) {
        migrate_del_blocker(&s->no_device_state);
    } else if (!s->no_device_state) {
        error_setg(&s->no_device_state, "the back-end of a vhost-user-tpm "
                   "device cannot transfer its state");
        ret = migrate_add_blocker(&s->no_device_state, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Leaves the link DOWN, whatever it was. */
static void tear_down(VHostUserTPM *s)
{
    if (s->ring_started) {
        stop_ring(s);
    }
    vhost_dev_cleanup(&s->dev);
    s->link = VHOST_USER_TPM_LINK_DOWN;
    if (s->lost_bh) {
        qemu_bh_cancel(s->lost_bh);
    }
}

/* From DOWN to UP; on failure it stays DOWN and the caller disconnects. */
static int connect_backend(VHostUserTPM *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int ret;

    s->dev.num_queues = REQUEST_QUEUES;
    s->dev.nvqs = REQUEST_QUEUES;
    s->dev.vqs = s->vhost_vqs;
    s->dev.vq_index = 0;
    s->dev.backend_features = 0;
    s->vhost_user.supports_config = true;

    ret = vhost_dev_init(&s->dev, &s->vhost_user, VHOST_BACKEND_TYPE_USER, 0,
                         errp);
    if (ret < 0) {
        return ret;
    }
    s->link = VHOST_USER_TPM_LINK_UP;

    ret = check_backend(s, errp);
    if (ret == 0) {
        ret = deliver_reset(s, errp);
    }
    if (ret == 0) {
        ret = deliver_run_state(s, errp);
    }
    if (ret == 0 && virtio_device_should_start(vdev, vdev->status)) {
        ret = start_ring(s, errp);
    }
    if (ret == 0 && !qemu_chr_fe_backend_open(&s->chardev)) {
        error_setg(errp, "the back-end closed the connection");
        ret = -ECONNRESET;
    }
    if (ret < 0) {
        tear_down(s);
    }
    return ret;
}

static void link_lost(VHostUserTPM *s)
{
    s->link = VHOST_USER_TPM_LINK_LOST;
    /* Common vhost code asks this before it fails a migration with abort(). */
    s->dev.started = false;
    qemu_bh_schedule(s->lost_bh);
}

static void vhost_user_tpm_lost_bh(void *opaque)
{
    VHostUserTPM *s = opaque;

    if (s->link != VHOST_USER_TPM_LINK_LOST) {
        return;
    }
    /*
     * Should a new back-end be there already, the farewell to the old one
     * must not reach it: let it connect again.
     */
    if (qemu_chr_fe_backend_open(&s->chardev)) {
        qemu_chr_fe_disconnect(&s->chardev);
    }
    tear_down(s);
}

static void vhost_user_tpm_event(void *opaque, QEMUChrEvent event)
{
    VHostUserTPM *s = opaque;
    Error *err = NULL;

    switch (event) {
    case CHR_EVENT_OPENED:
        /* Realize connects before it listens here, and then is told again. */
        if (s->link == VHOST_USER_TPM_LINK_DOWN &&
            connect_backend(s, &err) < 0) {
            error_reportf_err(err, "vhost-user-tpm: disconnecting: ");
            qemu_chr_fe_disconnect(&s->chardev);
        }
        break;
    case CHR_EVENT_CLOSED:
        /* While DOWN, connect_backend() is at work and sees its calls fail. */
        if (s->link == VHOST_USER_TPM_LINK_UP) {
            link_lost(s);
        }
        break;
    case CHR_EVENT_BREAK:
    case CHR_EVENT_MUX_IN:
    case CHR_EVENT_MUX_OUT:
        break;
    }
}

static int connect_first(VHostUserTPM *s, Error **errp)
{
    int ret;

    ret = qemu_chr_fe_wait_connected(&s->chardev, errp);
    if (ret < 0) {
        return ret;
    }
    ret = connect_backend(s, errp);
    if (ret < 0) {
        qemu_chr_fe_disconnect(&s->chardev);
    }
    return ret;
}

/* Migration */

static int check_transfer(VHostUserTPM *s, Error **errp)
{
    if (s->link != VHOST_USER_TPM_LINK_UP) {
        error_setg(errp, "the back-end is not connected");
        return -ENOTCONN;
    }
    if (s->ring_started) {
        error_setg(errp, "the ring is not stopped");
        return -EBUSY;
    }
    return 0;
}

static int vhost_user_tpm_pre_save(void *opaque)
{
    Error *err = NULL;
    int ret = check_transfer(opaque, &err);

    if (ret < 0) {
        error_reportf_err(err, "vhost-user-tpm: cannot save the TPM: ");
    }
    return ret;
}

static int vhost_user_tpm_save(QEMUFile *f, void *pv, size_t size,
                               const VMStateField *field, JSONWriter *vmdesc)
{
    VHostUserTPM *s = pv;
    Error *err = NULL;
    int ret = check_transfer(s, &err);

    if (ret == 0) {
        ret = vhost_save_backend_state(&s->dev, f, &err);
    }
    if (ret < 0) {
        error_reportf_err(err, "vhost-user-tpm: cannot save the TPM: ");
    }
    return ret;
}

static int vhost_user_tpm_load(QEMUFile *f, void *pv, size_t size,
                               const VMStateField *field)
{
    VHostUserTPM *s = pv;
    Error *err = NULL;
    int ret = check_transfer(s, &err);

    if (ret == 0) {
        ret = vhost_load_backend_state(&s->dev, f, &err);
    }
    if (ret < 0) {
        error_reportf_err(err, "vhost-user-tpm: cannot load the TPM: ");
    }
    return ret;
}

static const VMStateInfo vmstate_info_backend_state = {
    .name = "state of the vhost-user-tpm back-end",
    .get = vhost_user_tpm_load,
    .put = vhost_user_tpm_save,
};

/*
 * The TPM travels with the device and not in a subsection: a machine whose TPM
 * stayed behind must not start.
 */
static const VMStateDescription vmstate_vhost_user_tpm = {
    .name = "vhost-user-tpm",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = vhost_user_tpm_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        {
            .name = "back-end",
            .info = &vmstate_info_backend_state,
        },
        VMSTATE_END_OF_LIST()
    },
};

/* Life cycle */

static void vhost_user_tpm_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VHostUserTPM *s = VHOST_USER_TPM(dev);
    int tries_left = VU_REALIZE_CONN_RETRIES;
    Error *err = NULL;

    if (!qemu_chr_fe_backend_connected(&s->chardev)) {
        error_setg(errp, "vhost-user-tpm: 'chardev' is required");
        return;
    }
    if (s->queue_size > VIRTQUEUE_MAX_SIZE || !is_power_of_2(s->queue_size)) {
        error_setg(errp, "vhost-user-tpm: 'queue-size' must be a power of two "
                   "of at most %d", VIRTQUEUE_MAX_SIZE);
        return;
    }

    if (!vhost_user_init(&s->vhost_user, &s->chardev, errp)) {
        return;
    }
    virtio_init(vdev, VIRTIO_ID_TPM, 0);
    s->request_vq = virtio_add_queue(vdev, s->queue_size,
                                     vhost_user_tpm_handle_output);
    s->vhost_vqs = g_new0(struct vhost_virtqueue, REQUEST_QUEUES);
    s->link = VHOST_USER_TPM_LINK_DOWN;
    s->vm_running = runstate_is_live(runstate_get());
    /* Plugging a TPM into a machine is what powers it on. */
    s->reset_pending = dev->hotplugged && !runstate_check(RUN_STATE_INMIGRATE);

    while (connect_first(s, &err) < 0) {
        if (!tries_left--) {
            error_prepend(&err, "vhost-user-tpm: ");
            error_append_hint(&err, "A back-end hangs up on the second machine "
                              "that wants its TPM; its log knows more.\n");
            error_propagate(errp, err);
            goto fail;
        }
        error_reportf_err(err, "vhost-user-tpm: connecting again after: ");
        err = NULL;
    }

    s->lost_bh = qemu_bh_new_guarded(vhost_user_tpm_lost_bh, s,
                                     &dev->mem_reentrancy_guard);
    s->vm_change_state =
        qemu_add_vm_change_state_handler(vhost_user_tpm_vm_change_state, s);
    s->power = VHOST_USER_TPM_POWER(object_new(TYPE_VHOST_USER_TPM_POWER));
    s->power->tpm = s;
    qemu_register_resettable(OBJECT(s->power));

    qemu_chr_fe_set_handlers(&s->chardev, NULL, NULL, vhost_user_tpm_event,
                             NULL, s, NULL, true);
    if (!qemu_chr_fe_backend_open(&s->chardev)) {
        /* It closed when nobody listened yet. */
        link_lost(s);
    }
    return;

fail:
    migrate_del_blocker(&s->no_device_state);
    g_clear_pointer(&s->vhost_vqs, g_free);
    virtio_delete_queue(s->request_vq);
    virtio_cleanup(vdev);
    vhost_user_cleanup(&s->vhost_user);
}

static void vhost_user_tpm_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VHostUserTPM *s = VHOST_USER_TPM(dev);

    qemu_chr_fe_set_handlers(&s->chardev, NULL, NULL, NULL, NULL, NULL, NULL,
                             false);
    qemu_unregister_resettable(OBJECT(s->power));
    g_clear_pointer(&s->power, object_unref);
    qemu_del_vm_change_state_handler(s->vm_change_state);
    s->vm_change_state = NULL;

    if (s->link != VHOST_USER_TPM_LINK_DOWN) {
        tear_down(s);
    }
    g_clear_pointer(&s->lost_bh, qemu_bh_delete);
    migrate_del_blocker(&s->no_device_state);

    g_clear_pointer(&s->vhost_vqs, g_free);
    virtio_delete_queue(s->request_vq);
    virtio_cleanup(vdev);
    vhost_user_cleanup(&s->vhost_user);
}

static const Property vhost_user_tpm_properties[] = {
    DEFINE_PROP_CHR("chardev", VHostUserTPM, chardev),
    DEFINE_PROP_UINT16("queue-size", VHostUserTPM, queue_size, 64),
};

static void vhost_user_tpm_class_init(ObjectClass *klass,
                                      VHostUserTPMClassData data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);

    device_class_set_props(dc, vhost_user_tpm_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    dc->desc = "TPM 2.0 served by a vhost-user back-end";
    dc->vmsd = &vmstate_vhost_user_tpm;
    vdc->realize = vhost_user_tpm_realize;
    vdc->unrealize = vhost_user_tpm_unrealize;
    vdc->get_features = vhost_user_tpm_get_features;
    vdc->set_status = _Generic(vdc->set_status,
        int (*)(VirtIODevice *, uint8_t): vhost_user_tpm_set_status,
        void (*)(VirtIODevice *, uint8_t): vhost_user_tpm_set_status_void);
    vdc->get_vhost = vhost_user_tpm_get_vhost;
}

static const TypeInfo vhost_user_tpm_info = {
    .name = TYPE_VHOST_USER_TPM,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VHostUserTPM),
    .class_init = vhost_user_tpm_class_init,
};

static void vhost_user_tpm_register(void)
{
    type_register_static(&vhost_user_tpm_info);
}

type_init(vhost_user_tpm_register)
