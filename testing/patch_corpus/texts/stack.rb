# frozen_string_literal: true

module Invoices
  # Invoices that wait for approval, last in first out.
  class Stack
    LIMIT = 40

    attr_reader :items

    def initialize
      @items = []
    end

    def push(item)
      raise ArgumentError, "no item" if item.nil?
      raise "stack is full" if @items.size >= LIMIT

      @items.push(item)
      self
    end

    def pop
      return nil if @items.empty?

      @items.pop
    end

    def peek
      return nil if @items.empty?

      @items.last
    end

    def each
      return to_enum(:each) unless block_given?

      @items.reverse_each do |item|
        yield item
      end
    end

    def to_s
      "#<Stack #{@items.size} of #{LIMIT}>"
    end
  end
end
