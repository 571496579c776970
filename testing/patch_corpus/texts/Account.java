package org.example.invoice;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;

/**
 * An account that collects invoices.
 */
public final class InvoiceAccount {
    private final String owner;
    private final List<BigDecimal> amounts = new ArrayList<>();
    private boolean closed;

    public InvoiceAccount(String owner) {
        this.owner = Objects.requireNonNull(owner, "owner");
    }

    public String getOwner() {
        return owner;
    }

    public List<BigDecimal> getAmounts() {
        return Collections.unmodifiableList(amounts);
    }

    public boolean isClosed() {
        return closed;
    }

    public void post(BigDecimal amount) {
        if (closed) {
            throw new IllegalStateException("the account is closed");
        }
        if (amount.signum() == 0) {
            return;
        }
        amounts.add(amount);
    }

    public BigDecimal balance() {
        BigDecimal sum = BigDecimal.ZERO;
        for (BigDecimal amount : amounts) {
            sum = sum.add(amount);
        }
        return sum;
    }

    public void close() {
        if (balance().signum() != 0) {
            throw new IllegalStateException("the balance isn't zero");
        }
        closed = true;
    }

    @Override
    public String toString() {
        return "InvoiceAccount[" + owner + ", " + balance() + "]";
    }
}
