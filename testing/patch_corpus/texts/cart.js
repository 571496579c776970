'use strict';

const TAX = 0.19;
const SHIPPING = { slow: 3.5, fast: 7.9 };

/** A cart full of invoices. */
class InvoiceCart {
  constructor(owner) {
    this.owner = owner;
    this.items = [];
    this.listeners = new Set();
  }

  add(item, count = 1) {
    if (!item || count < 1) {
      throw new RangeError(`can't add ${count} of ${item}`);
    }
    this.items.push({ item, count });
    this.changed('add');
    return this;
  }

  remove(item) {
    const at = this.items.findIndex((entry) => entry.item === item);
    if (at === -1) {
      return false;
    }
    this.items.splice(at, 1);
    this.changed('remove');
    return true;
  }

  total(speed = 'slow') {
    const net = this.items.reduce((sum, entry) => sum + entry.item.price * entry.count, 0);
    const gross = net * (1 + TAX);
    return gross + SHIPPING[speed];
  }

  changed(what) {
    for (const listener of this.listeners) {
      listener(what, this);
    }
  }
}

async function loadInvoices(url) {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error('cannot load: ' + response.status);
  }
  return response.json();
}

module.exports = { InvoiceCart, loadInvoices, TAX };
