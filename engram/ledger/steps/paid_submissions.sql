CREATE TABLE payment_credits (
	account BLOB NOT NULL,
	units INTEGER NOT NULL,
	bought INTEGER NOT NULL,
	updated_at REAL NOT NULL,
	CONSTRAINT pk_payment_credits PRIMARY KEY (account)
)

 WITHOUT ROWID, STRICT;
CREATE INDEX ix_xeris_accepted_hash ON xeris_accepted (signed_hash);
CREATE TABLE xeris_submissions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	at REAL NOT NULL,
	verdict TEXT NOT NULL,
	signer TEXT NOT NULL,
	kind TEXT NOT NULL,
	netuid INTEGER,
	block INTEGER,
	signed_hash TEXT NOT NULL,
	reason TEXT NOT NULL
)

 STRICT;
CREATE INDEX ix_xeris_submissions_at ON xeris_submissions (at);
