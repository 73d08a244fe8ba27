// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TPM 2.0 over virtio, device id 62.
 *
 * The device has one request queue. A chain on it holds a TPM command in its
 * readable descriptors and room for the response in its writable ones; the
 * used length is the length of the response. There is no config space that
 * the driver needs and there are no feature bits of its own.
 *
 * The TPM core gives a driver one command at a time, so the driver keeps one
 * request. What makes the rest of it is everything that may go wrong between
 * the two: the back-end may be slow, may restart, may move to another host
 * with the machine; the caller may be killed; the function may be reset
 * under the driver. The rule that holds it together: the two buffers belong
 * to the device from virtqueue_add_sgs() until either virtqueue_get_buf()
 * returned them or the device was reset, and nobody else touches them before.
 */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/tpm.h>
#include <linux/types.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#define TPM_VIRTIO_ID		62

/* The core moves commands and responses in one page (its TPM_BUFSIZE). */
#define TPM_VIRTIO_BUFFER	4096

/* How long a wait may sleep before it looks at the device by itself. */
#define TPM_VIRTIO_SLICE	(HZ / 2)

/* A function-level reset takes a tenth of a second at least. */
#define TPM_VIRTIO_REVIVALS	100
#define TPM_VIRTIO_REVIVAL_MS	20

/*
 * The header with these belongs to the core's own directory and is not among
 * the installed ones; the functions are exported to modules all the same.
 */
extern struct tpm_chip *tpmm_chip_alloc(struct device *pdev,
					const struct tpm_class_ops *ops);
extern int tpm_chip_register(struct tpm_chip *chip);
extern void tpm_chip_unregister(struct tpm_chip *chip);
extern int tpm_pm_suspend(struct device *dev);
extern int tpm_pm_resume(struct device *dev);

/*
 * The slowest TPM command, making an RSA key, is given five minutes by the
 * core too. A back-end that restarts or a machine that is paused takes its
 * time from the same allowance.
 */
static unsigned int timeout = 300;
module_param(timeout, uint, 0644);
MODULE_PARM_DESC(timeout, "Seconds to wait for one response (default 300)");

enum tpm_virtio_state {
	TPM_VIRTIO_IDLE,	/* both buffers are ours */
	TPM_VIRTIO_QUEUED,	/* both buffers are the device's */
	TPM_VIRTIO_DONE,	/* ours again, with a response that nobody took */
};

struct tpm_virtio {
	struct virtio_device *vdev;
	struct tpm_chip *chip;

	/* Keeps a command and a teardown of the queue apart. */
	struct mutex lock;
	struct virtqueue *vq;	/* NULL while the queue is torn down */
	bool suspended;

	/* Guards the queue and the three below against the interrupt. */
	spinlock_t vq_lock;
	enum tpm_virtio_state state;
	unsigned int response_len;
	struct completion done;

	u8 *command;
	u8 *response;
};

static struct tpm_virtio *to_tpm_virtio(struct tpm_chip *chip)
{
	return dev_to_virtio(chip->dev.parent)->priv;
}

/* Takes back what the device has finished with. */
static void tpm_virtio_reap(struct tpm_virtio *vt)
{
	unsigned long flags;
	unsigned int len;
	void *token;

	spin_lock_irqsave(&vt->vq_lock, flags);
	while (vt->vq && (token = virtqueue_get_buf(vt->vq, &len))) {
		if (token != vt || vt->state != TPM_VIRTIO_QUEUED)
			continue;
		vt->response_len = len;
		vt->state = TPM_VIRTIO_DONE;
		complete(&vt->done);
	}
	spin_unlock_irqrestore(&vt->vq_lock, flags);
}

static void tpm_virtio_used(struct virtqueue *vq)
{
	tpm_virtio_reap(vq->vdev->priv);
}

static int tpm_virtio_start(struct tpm_virtio *vt)
{
	struct virtqueue *vq;
	unsigned long flags;

	vq = virtio_find_single_vq(vt->vdev, tpm_virtio_used, "requests");
	if (IS_ERR(vq))
		return PTR_ERR(vq);

	spin_lock_irqsave(&vt->vq_lock, flags);
	vt->vq = vq;
	vt->state = TPM_VIRTIO_IDLE;
	spin_unlock_irqrestore(&vt->vq_lock, flags);

	virtio_device_ready(vt->vdev);
	return 0;
}

/* After this the device holds nothing of ours, whatever it was doing. */
static void tpm_virtio_stop(struct tpm_virtio *vt)
{
	unsigned long flags;

	virtio_reset_device(vt->vdev);

	spin_lock_irqsave(&vt->vq_lock, flags);
	vt->vq = NULL;
	vt->state = TPM_VIRTIO_IDLE;
	spin_unlock_irqrestore(&vt->vq_lock, flags);

	vt->vdev->config->del_vqs(vt->vdev);
}

/*
 * Does the device still know this driver? Not if somebody reset the function,
 * nor if it asks for a reset itself. While a function is being reset nothing
 * answers at its address; when it was unplugged nothing does either.
 */
static bool tpm_virtio_alive(struct tpm_virtio *vt)
{
	u8 status;

	if (!vt->vq)
		return false;
	status = vt->vdev->config->get_status(vt->vdev);
	return status != 0xff && (status & VIRTIO_CONFIG_S_DRIVER_OK) &&
	       !(status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/*
 * Starts a device again that was reset under the driver, through sysfs or
 * VFIO; the transports of most kernels do not tell their drivers. The TPM
 * itself survives such a reset, so all that is lost is the queue.
 *
 * The lock of the transport's device is held during the whole of such a
 * reset, and so also keeps this from touching the device halfway through. It
 * is held during a removal too, which waits for the command that called us:
 * hence only a trylock, and an end to the attempts.
 */
static int tpm_virtio_revive(struct tpm_virtio *vt)
{
#ifdef CONFIG_PM_SLEEP
	struct device *transport = vt->vdev->dev.parent;
	unsigned int attempt;
	int rc;

	for (attempt = 0; attempt < TPM_VIRTIO_REVIVALS; attempt++) {
		if (attempt)
			msleep(TPM_VIRTIO_REVIVAL_MS);
		if (vt->vq && virtqueue_is_broken(vt->vq))
			return -ENODEV;
		if (!device_trylock(transport))
			continue;
		if (tpm_virtio_alive(vt)) {
			rc = 0;
		} else {
			if (vt->vq)
				tpm_virtio_stop(vt);
			/* Resets, negotiates and calls our restore. */
			rc = virtio_device_restore(vt->vdev);
			if (!rc)
				dev_info(&vt->vdev->dev, "started again after a reset\n");
		}
		device_unlock(transport);
		if (!rc)
			return 0;
	}
#endif
	return -ENODEV;
}

/* Sees to it that a command can be queued. */
static int tpm_virtio_check(struct tpm_virtio *vt)
{
	if (vt->suspended)
		return -EBUSY;
	if (vt->vq && virtqueue_is_broken(vt->vq))
		return -ENODEV;
	if (tpm_virtio_alive(vt))
		return 0;
	return tpm_virtio_revive(vt);
}

/*
 * Waits until the buffers are ours again.
 *
 * It does not trust the interrupt alone: one may be lost when a back-end dies
 * between publishing a response and signalling it.
 *
 * A fatal signal or the timeout ends the wait but not the command. The request
 * stays queued, and whoever comes next waits for it first.
 */
static int tpm_virtio_wait(struct tpm_virtio *vt)
{
	unsigned long stop = jiffies + (unsigned long)READ_ONCE(timeout) * HZ;
	struct virtqueue *vq = vt->vq;
	long left;
	int rc;

	while (READ_ONCE(vt->state) == TPM_VIRTIO_QUEUED) {
		left = wait_for_completion_killable_timeout(&vt->done,
							    TPM_VIRTIO_SLICE);
		if (left < 0)
			return left;
		if (left > 0)
			break;

		tpm_virtio_reap(vt);
		if (READ_ONCE(vt->state) != TPM_VIRTIO_QUEUED)
			break;
		rc = tpm_virtio_check(vt);
		if (rc)
			return rc;
		if (vt->vq != vq || READ_ONCE(vt->state) == TPM_VIRTIO_IDLE)
			return -EIO;	/* was reset: it may or may not have run */
		if (time_after(jiffies, stop)) {
			dev_err(&vt->vdev->dev, "no response in %u s\n", timeout);
			return -ETIMEDOUT;
		}
	}
	return 0;
}

static int tpm_virtio_submit(struct tpm_virtio *vt, const u8 *buf, size_t len)
{
	struct scatterlist command, response, *sgs[2] = { &command, &response };
	unsigned long flags;
	bool notify = false;
	int rc;

	memcpy(vt->command, buf, len);
	/* What the device claims to have written but did not must not be old. */
	memset(vt->response, 0, TPM_VIRTIO_BUFFER);
	sg_init_one(&command, vt->command, len);
	sg_init_one(&response, vt->response, TPM_VIRTIO_BUFFER);

	spin_lock_irqsave(&vt->vq_lock, flags);
	reinit_completion(&vt->done);
	rc = virtqueue_add_sgs(vt->vq, sgs, 1, 1, vt, GFP_ATOMIC);
	if (!rc) {
		vt->state = TPM_VIRTIO_QUEUED;
		notify = virtqueue_kick_prepare(vt->vq);
	}
	spin_unlock_irqrestore(&vt->vq_lock, flags);

	if (notify && !virtqueue_notify(vt->vq))
		return -ENODEV;
	return rc;
}

static int tpm_virtio_send(struct tpm_chip *chip, u8 *buf, size_t len)
{
	struct tpm_virtio *vt = to_tpm_virtio(chip);
	int rc;

	if (len > TPM_VIRTIO_BUFFER)
		return -E2BIG;

	mutex_lock(&vt->lock);
	rc = tpm_virtio_check(vt);
	if (rc)
		goto out;

	/* A predecessor may have given up on a command that still runs. */
	rc = tpm_virtio_wait(vt);
	if (rc)
		goto out;
	vt->state = TPM_VIRTIO_IDLE;

	rc = tpm_virtio_submit(vt, buf, len);
	if (rc)
		goto out;
	rc = tpm_virtio_wait(vt);
	/* Commands carry authorization values. */
	if (!rc)
		memzero_explicit(vt->command, len);
out:
	mutex_unlock(&vt->lock);
	return rc;
}

/* Linux 6.17 or so tells send the size of the buffer, for chips without recv. */
static int __maybe_unused tpm_virtio_send_sized(struct tpm_chip *chip, u8 *buf,
						size_t bufsiz, size_t len)
{
	return tpm_virtio_send(chip, buf, len);
}

static int tpm_virtio_recv(struct tpm_chip *chip, u8 *buf, size_t len)
{
	struct tpm_virtio *vt = to_tpm_virtio(chip);
	int rc;

	mutex_lock(&vt->lock);
	if (vt->state != TPM_VIRTIO_DONE) {
		rc = -EIO;
	} else if (vt->response_len > TPM_VIRTIO_BUFFER || vt->response_len > len) {
		dev_err(&vt->vdev->dev, "response of %u bytes is too long\n",
			vt->response_len);
		rc = -EIO;
	} else {
		memcpy(buf, vt->response, vt->response_len);
		rc = vt->response_len;
	}
	if (vt->state == TPM_VIRTIO_DONE) {
		memzero_explicit(vt->response, TPM_VIRTIO_BUFFER);
		vt->state = TPM_VIRTIO_IDLE;
	}
	mutex_unlock(&vt->lock);
	return rc;
}

/*
 * send() waits, so that to the core a command that was sent is complete: with
 * an empty mask any status matches. It never gets as far as cancelling, and
 * the queue has no way to take a command back.
 */
static u8 tpm_virtio_status(struct tpm_chip *chip)
{
	return 0;
}

static void tpm_virtio_cancel(struct tpm_chip *chip)
{
}

static bool tpm_virtio_req_canceled(struct tpm_chip *chip, u8 status)
{
	return false;
}

static const struct tpm_class_ops tpm_virtio_ops = {
	.flags = TPM_OPS_AUTO_STARTUP,
	.req_complete_mask = 0,
	.req_complete_val = 0,
	.status = tpm_virtio_status,
	.cancel = tpm_virtio_cancel,
	.req_canceled = tpm_virtio_req_canceled,
	.recv = tpm_virtio_recv,
	.send = __builtin_choose_expr(
		__builtin_types_compatible_p(
			typeof(((struct tpm_class_ops *)NULL)->send),
			int (*)(struct tpm_chip *, u8 *, size_t)),
		tpm_virtio_send, tpm_virtio_send_sized),
};

static void tpm_virtio_free(void *data)
{
	struct tpm_virtio *vt = data;

	kfree_sensitive(vt->command);
	kfree_sensitive(vt->response);
}

static int tpm_virtio_probe(struct virtio_device *vdev)
{
	struct tpm_virtio *vt;
	int rc;

	vt = devm_kzalloc(&vdev->dev, sizeof(*vt), GFP_KERNEL);
	if (!vt)
		return -ENOMEM;
	vt->vdev = vdev;
	vdev->priv = vt;
	mutex_init(&vt->lock);
	spin_lock_init(&vt->vq_lock);
	init_completion(&vt->done);

	/* An allocation each: no cache line of one is part of the other's. */
	vt->command = kzalloc(TPM_VIRTIO_BUFFER, GFP_KERNEL);
	vt->response = kzalloc(TPM_VIRTIO_BUFFER, GFP_KERNEL);
	rc = devm_add_action_or_reset(&vdev->dev, tpm_virtio_free, vt);
	if (rc)
		return rc;
	if (!vt->command || !vt->response)
		return -ENOMEM;

	/* Also makes the chip the device's driver data, for tpm_pm_suspend(). */
	vt->chip = tpmm_chip_alloc(&vdev->dev, &tpm_virtio_ops);
	if (IS_ERR(vt->chip))
		return PTR_ERR(vt->chip);
	vt->chip->flags |= TPM_CHIP_FLAG_TPM2;

	rc = tpm_virtio_start(vt);
	if (rc)
		return rc;

	/* Talks to the TPM already. */
	rc = tpm_chip_register(vt->chip);
	if (rc) {
		dev_err(&vdev->dev, "the TPM could not be registered: %d\n", rc);
		tpm_virtio_stop(vt);
		/*
		 * TPM response codes are positive; the bus takes any positive
		 * result of a probe for success.
		 */
		return rc < 0 ? rc : -EIO;
	}
	return 0;
}

static void tpm_virtio_remove(struct virtio_device *vdev)
{
	struct tpm_virtio *vt = vdev->priv;

	/* Waits for the command in flight and lets no further one in. */
	tpm_chip_unregister(vt->chip);

	mutex_lock(&vt->lock);
	if (vt->vq)
		tpm_virtio_stop(vt);
	mutex_unlock(&vt->lock);
}

#ifdef CONFIG_PM_SLEEP
static int tpm_virtio_freeze(struct virtio_device *vdev)
{
	struct tpm_virtio *vt = vdev->priv;
	int rc;

	/* TPM2_Shutdown(STATE), and the core keeps its random pool off. */
	rc = tpm_pm_suspend(&vdev->dev);
	if (rc)
		return rc;

	mutex_lock(&vt->lock);
	vt->suspended = true;
	if (vt->vq)
		tpm_virtio_stop(vt);
	mutex_unlock(&vt->lock);
	return 0;
}

/* Called after suspend, and by tpm_virtio_revive() with the lock held. */
static int tpm_virtio_restore(struct virtio_device *vdev)
{
	struct tpm_virtio *vt = vdev->priv;
	int rc;

	rc = tpm_virtio_start(vt);
	if (rc || !vt->suspended)
		return rc;
	vt->suspended = false;
	return tpm_pm_resume(&vdev->dev);
}
#endif

static const struct virtio_device_id tpm_virtio_ids[] = {
	{ TPM_VIRTIO_ID, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, tpm_virtio_ids);

static struct virtio_driver tpm_virtio_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = tpm_virtio_ids,
	.probe = tpm_virtio_probe,
	.remove = tpm_virtio_remove,
#ifdef CONFIG_PM_SLEEP
	.freeze = tpm_virtio_freeze,
	.restore = tpm_virtio_restore,
#endif
};
module_virtio_driver(tpm_virtio_driver);

MODULE_DESCRIPTION("TPM 2.0 over virtio");
MODULE_LICENSE("GPL");
