"""What a certificate, and a signature over what was sent, is worth."""
