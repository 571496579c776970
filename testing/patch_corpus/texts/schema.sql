-- The tables of the invoice service.

CREATE TABLE customers (
    id          BIGSERIAL PRIMARY KEY,
    name        TEXT NOT NULL,
    email       TEXT,
    created_at  TIMESTAMP NOT NULL DEFAULT now()
);

CREATE TABLE invoices (
    id          BIGSERIAL PRIMARY KEY,
    customer_id BIGINT NOT NULL REFERENCES customers (id),
    total       NUMERIC(12, 2) NOT NULL DEFAULT 0,
    paid        BOOLEAN NOT NULL DEFAULT FALSE,
    created_at  TIMESTAMP NOT NULL DEFAULT now()
);

CREATE TABLE invoice_lines (
    id          BIGSERIAL PRIMARY KEY,
    invoice_id  BIGINT NOT NULL REFERENCES invoices (id),
    text        TEXT NOT NULL,
    cents       INTEGER NOT NULL CHECK (cents <> 0)
);

CREATE INDEX invoices_by_customer ON invoices (customer_id);
CREATE INDEX lines_by_invoice ON invoice_lines (invoice_id);

-- What is open, by customer.
CREATE VIEW open_invoices AS
SELECT c.name, count(*) AS open, sum(i.total) AS total
FROM invoices i
JOIN customers c ON c.id = i.customer_id
WHERE NOT i.paid
GROUP BY c.name
ORDER BY total DESC;

INSERT INTO customers (name, email) VALUES
    ('Ada', 'ada@example.org'),
    ('Bob', 'bob@example.org'),
    ('Cem', NULL);
