/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_dates.c -- when the certificates in a file hold. Judges nothing: that is control_x509.c's.
 */
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "transport/inquire.h"

int via_certificate_dates(const char *path, struct via_validity *validity, unsigned max)
{
	gnutls_x509_crt_t *cert = NULL;
	gnutls_datum_t text = {0};
	unsigned n = 0;
	int rc;

	if (gnutls_load_file(path, &text))
		return -ENOENT;
	rc = gnutls_x509_crt_list_import2(&cert, &n, &text, GNUTLS_X509_FMT_PEM, 0);
	gnutls_free(text.data);
	if (rc < 0)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		if (i < max) {
			validity[i].from = gnutls_x509_crt_get_activation_time(cert[i]);
			validity[i].to = gnutls_x509_crt_get_expiration_time(cert[i]);
		}
		gnutls_x509_crt_deinit(cert[i]);
	}
	gnutls_free(cert);
	return (int)(n < max ? n : max);
}
