"""Stories and minimal pairs that need no network: one template grammar of about 1,000 words writes both."""
