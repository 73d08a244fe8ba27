/*
 * PCI binding of the vhost-user TPM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/vhost-user-tpm.h"
#include "hw/virtio/virtio-pci.h"

#define TYPE_VHOST_USER_TPM_PCI "vhost-user-tpm-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VHostUserTPMPCI, VHOST_USER_TPM_PCI)

struct VHostUserTPMPCI {
    VirtIOPCIProxy parent_obj;
    VHostUserTPM tpm;
};

static void vhost_user_tpm_pci_realize(VirtIOPCIProxy *proxy, Error **errp)
{
    VHostUserTPMPCI *pci = VHOST_USER_TPM_PCI(proxy);

    if (proxy->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        /*
         * One for the request queue; drivers also want one for changes of the
         * configuration before they use a vector per queue.
         */
        proxy->nvectors = 2;
    }

    qdev_realize(DEVICE(&pci->tpm), BUS(&proxy->bus), errp);
}

static const Property vhost_user_tpm_pci_properties[] = {
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void vhost_user_tpm_pci_class_init(ObjectClass *klass,
                                          VHostUserTPMClassData data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    device_class_set_props(dc, vhost_user_tpm_pci_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    dc->desc = "TPM 2.0 served by a vhost-user back-end";
    VIRTIO_PCI_CLASS(klass)->realize = vhost_user_tpm_pci_realize;
    pc->vendor_id = PCI_VENDOR_ID_REDHAT_QUMRANET;
    /* virtio-pci derives the device id from the virtio id. */
    pc->device_id = 0;
    pc->class_id = PCI_CLASS_OTHERS;
}

static void vhost_user_tpm_pci_instance_init(Object *obj)
{
    VHostUserTPMPCI *pci = VHOST_USER_TPM_PCI(obj);

    virtio_instance_init_common(obj, &pci->tpm, sizeof(pci->tpm),
                                TYPE_VHOST_USER_TPM);
}

/* No transitional variant: there never was a legacy virtio TPM. */
static const VirtioPCIDeviceTypeInfo vhost_user_tpm_pci_info = {
    .base_name = TYPE_VHOST_USER_TPM_PCI,
    .non_transitional_name = "vhost-user-tpm-pci",
    .instance_size = sizeof(VHostUserTPMPCI),
    .instance_init = vhost_user_tpm_pci_instance_init,
    .class_init = vhost_user_tpm_pci_class_init,
};

static void vhost_user_tpm_pci_register(void)
{
    virtio_pci_types_register(&vhost_user_tpm_pci_info);
}

type_init(vhost_user_tpm_pci_register)
